"""The training set: images found in folders, read, and encoded to latents once.

Only the latents stay in memory (kilobytes per image), so five hundred images cost no more than five. The order of the
images follows from the seed and the position alone, so resuming needs no saved state. Images of all shapes share one
shuffled order; training/micro_batches.py groups those of a step by shape.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..host import Host, Size
from ..prompts import NAME
from ..seeds import seed_from
from ..text import Remarks, listed, with_rest
from .captions import CaptionReader
from .image_files import DAMAGED, SUFFIXES, read_image, read_mask
from .listing import Listing, subfolders
from .masks import Source
from .picture import Picture, bucket

GROUP = 4  # images whose mirrored copies follow them: the order that a run's seed shuffles
NO_IMAGES = "None of the images can be used. Put 3 to 5 readable images (PNG, JPEG or WebP) into the folder."
NO_REPEATS: Mapping[Path, int] = {}
MOST_REPEATS, DIGITS = 10_000, 6  # an epoch is a list; so many digits are more than any number of it


@dataclass(frozen=True)
class Encoded:
    """An encoded training image. Tensors are fp32 on the CPU."""

    name: str
    number: int  # of the image, from 0; a mirrored copy shares its original's
    mean: Tensor  # of the VAE's posterior, [C, h, w]
    log_variance: Tensor | None  # of the VAE's posterior, [C, h, w]; None if the VAE has none
    weights: Tensor  # of each position in the loss, [1, h, w] of mean 1
    size: Size
    caption: str
    repeats: int  # per epoch


@dataclass(frozen=True)
class Dataset:
    """The encoded images, and a hash of everything that training uses of them."""

    pictures: tuple[Encoded, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def resolution(self) -> int:
        """Side in pixels of a square with the area of the largest image, rounded to a multiple of 8."""
        most = max(height * width for height, width in (picture.size.target for picture in self.pictures))
        return round(math.sqrt(most) / 8) * 8

    @cached_property
    def _deck(self) -> list[Encoded]:
        return [picture for picture in self.pictures for _ in range(picture.repeats)]

    def take(self, position: int, count: int, seed: int) -> list[Encoded]:
        """Images `position` to `position + count` of the endless sequence of shuffled epochs."""
        return [self._deck[place] for _, place in self._turns(position, count, seed)]

    def turns(self, position: int, count: int, seed: int) -> list[tuple[int, float]]:
        """Of the images that `take` gives, the epoch, and the place in an unshuffled one, from 0 to below 1."""
        return [(epoch, place / len(self._deck)) for epoch, place in self._turns(position, count, seed)]

    def _turns(self, position: int, count: int, seed: int) -> list[tuple[int, int]]:
        size, end = len(self._deck), position + count
        epochs = {number: self._epoch(number, seed) for number in range(position // size, -(-end // size))}
        return [(p // size, epochs[p // size][p % size]) for p in range(position, end)]

    def _epoch(self, number: int, seed: int) -> list[int]:
        """A shuffled order of the images."""
        generator = torch.Generator().manual_seed(seed_from("round", seed, number))
        order: list[int] = torch.randperm(len(self._deck), generator=generator).tolist()
        return order


def find_pictures(folder: Path) -> list[Path]:
    """The training images of a folder, sorted by name. Raises UserError if there are none."""
    return list(listing_with_images(folder).images)


def listing_with_images(folder: Path) -> Listing:
    """The listing of a folder. Raises UserError if there are no training images."""
    if not os.path.isdir(folder):  # False too for what no name can be
        raise UserError(f"The folder '{folder}' does not exist. Give the folder with your 3 to 5 training images.")
    listing = Listing.of(folder)
    if not listing.images:
        why = " ".join(listing.remarks(captions=False, masks=True))
        raise UserError(
            f"The folder '{folder}' has no images ({' '.join(SUFFIXES)}). "
            + (why or _images_below(folder) or "Put 3 to 5 of them there.")
        )
    return listing


def _images_below(folder: Path) -> str:
    """Which subfolders have images, as in the folder that kohya's scripts are given; "" if none has."""
    counts = {inner: len(Listing.of(inner).images) for inner in subfolders(folder)}
    inner = {path.relative_to(folder).as_posix(): count for path, count in counts.items() if count}
    if not inner:
        return ""
    counted = listed([f"{name} ({count})" for name, count in inner.items()])
    sentence = f"Its subfolders have some: {counted}. Give these instead."
    times, _, concept = next(iter(inner)).partition("_")
    if concept and times.isdecimal():
        first = (folder / next(iter(inner))).as_posix()
        sentence += f" Where repeats can be given, kohya's {times} is written after the folder: {first}:{times}"
    return sentence


def with_repeats(given: Iterable[str], place: Callable[[str], Path] = Path) -> dict[Path, int]:
    """Folder -> repeats, from FOLDER or FOLDER:3. place: the path of a folder of that name.

    Repeats are not read from folder names: with kohya's 3_name a "2024_holiday" would be repeated two thousand times.
    Raises UserError for more of them than an epoch in memory can have.
    """
    repeats = {}
    for text in given:
        folder, _, times = text.rpartition(":")
        counted = folder and times.isdecimal() and not os.path.isdir(place(text))
        number = int(times.lstrip("0")[:DIGITS] or 0) if counted else 0
        if number > MOST_REPEATS:
            raise UserError(
                f"'{folder}' is to be repeated {times[:DIGITS]} times or more; {MOST_REPEATS} are possible."
            )
        repeats[place(folder if number else text)] = number or 1
    return repeats


def read_pictures(
    paths: Iterable[Path],
    resolution: int,
    warn: Remarks,
    captions: bool = False,
    masks: Source = "files",
    square: bool = False,
    repeats: Mapping[Path, int] = NO_REPEATS,
    unit: int = 8,
) -> Iterator[Picture]:
    """Reads images one at a time, cropped to their bucket or to a square; appends to `warn` what cannot be used.

    captions: all of them; else only those with [name], which need no template.
    repeats: folder -> how often its images occur in an epoch, if not once. unit: see `bucket`.
    """
    readers: dict[Path, CaptionReader] = {}
    seen: dict[bytes, Path] = {}
    for path in paths:
        if path.parent not in readers:
            readers[path.parent] = CaptionReader(Listing.of(path.parent), warn if captions else Remarks())
            warn += readers[path.parent].listing.remarks(captions, masks != "none")
        reader = readers[path.parent]
        mask_path = reader.listing.masks.get(path) if masks != "none" else None
        try:
            image, alpha = read_image(path, resolution, warn)
            mask = read_mask(mask_path, warn) if mask_path else alpha if masks == "alpha" else None
            shape = (resolution, resolution) if square else bucket(image.size, resolution, unit)
            caption = reader.caption(path)
            if captions and caption is None:
                warn.append(reader.missing(path))
            used = caption if caption and (captions or NAME in caption) else ""
            picture = Picture.cropped(path.name, image, shape, used, mask, repeats.get(path.parent, 1))
        except (UserError, *DAMAGED) as error:
            which = f"{path.name} (mask {mask_path.name})" if mask_path else path.name
            warn.append(f"Skipped {which}: {_why(error)}")
            continue
        first = seen.setdefault(hashlib.sha256(picture.pixels.tobytes()).digest(), path)
        if first != path:
            name = first.name if first.parent == path.parent else first
            warn.append(f"{path.name} is the same image as {name}, which therefore counts twice.")
        yield picture


def _why(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # the system's own, not Pillow's
        return f"it cannot be opened ({error.strerror})."
    return f"it is not a readable image, or it is damaged ({error})."


def encode_pictures(
    host: Host, pictures: Iterable[Picture], flip: bool = False, skipped: Sequence[str] = ()
) -> Dataset:
    """Encodes all images with the host's VAE, once. flip: mirrored copies too. Raises UserError if no image is left.

    skipped: why images were left out, which `pictures` may append to.

    One at a time: the VAE's activations of one image are the most that a run holds besides the weights.
    """
    source, digest = enumerate(pictures), hashlib.sha256()
    encoded: list[Encoded] = []
    while group := list(islice(source, GROUP)):
        if flip:
            group += [(number, picture.mirrored()) for number, picture in group]
        for number, picture in group:
            digest.update(repr((picture.size, picture.caption, picture.mask is not None, picture.repeats)).encode())
            digest.update(picture.pixels.tobytes())
            digest.update(b"" if picture.mask is None else picture.mask.tobytes())
            encoded.append(_encode(host, number, picture))
    if not encoded:
        raise UserError(NO_IMAGES, *with_rest(skipped))
    return Dataset(tuple(encoded), digest.hexdigest())


def _encode(host: Host, number: int, picture: Picture) -> Encoded:
    latents = host.latents(torch.from_numpy(picture.pixels.copy())[None])
    mean = latents.mean[0].float().cpu()
    if not mean.isfinite().all():
        raise UserError(f"The VAE encodes {picture.name} to values that are not finite numbers. Use another VAE.")
    variance = None if latents.log_variance is None else latents.log_variance[0].float().cpu()
    weights = weights_of(picture.mask, mean.shape[-2:])
    return Encoded(picture.name, number, mean, variance, weights, picture.size, picture.caption, picture.repeats)


def weights_of(mask: np.ndarray | None, shape: Sequence[int]) -> Tensor:
    """A mask averaged over the area of each latent, [1, h, w] of mean 1: a small mask does not scale the loss down."""
    if mask is None:
        return torch.ones(1, *shape)
    averaged = F.interpolate(torch.from_numpy(mask.copy()).float()[None, None], tuple(shape), mode="area")[0]
    return averaged / averaged.mean()
