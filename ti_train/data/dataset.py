"""The training set: pictures found in folders, read, and turned into latents once.

Only the latents stay in memory (kilobytes a picture), so five hundred pictures cost no more than five. Which picture
comes when follows from the seed and the position alone: nothing needs to be remembered to go on after an interruption.
Pictures of different shapes come in one shuffled order all the same; training/micro_batches.py sorts a step's by shape.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import UserError
from ..host import Host, Size
from ..seeds import seed_from
from .captions import CaptionReader
from .image_files import DAMAGED, SUFFIXES, read_image, read_mask
from .masks import Source, mask_file, without_masks
from .picture import Picture, bucket

ENCODED_AT_ONCE = 4  # pictures through the VAE: one batch's memory, however many there are
NO_REPEATS: Mapping[Path, int] = {}


@dataclass(frozen=True)
class Encoded:
    """A picture as the loop knows it. Tensors are fp32 on the CPU."""

    name: str
    number: int  # of the picture that was given, from 0: a mirrored copy has its original's
    mean: Tensor  # of the VAE's posterior, [C, h, w]
    log_variance: Tensor | None  # the same; None where the VAE has none
    weights: Tensor  # how much each place counts in the loss, [1, h, w] of mean 1
    size: Size
    caption: str
    repeats: int  # times in a round


@dataclass(frozen=True)
class Dataset:
    """The pictures, and a hash of all that they teach."""

    pictures: tuple[Encoded, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def resolution(self) -> int:
        """The side in pixels of a square with as many as the largest picture, to a multiple of 8."""
        most = max(height * width for height, width in (picture.size.target for picture in self.pictures))
        return round(math.sqrt(most) / 8) * 8

    @cached_property
    def _deck(self) -> list[Encoded]:
        return [picture for picture in self.pictures for _ in range(picture.repeats)]

    def shown(self, position: int, count: int, seed: int) -> list[Encoded]:
        """What comes at `position` .. `position + count` of an endless sequence of shuffled rounds."""
        size, end = len(self._deck), position + count
        rounds = {number: self._round(number, seed) for number in range(position // size, -(-end // size))}
        return [rounds[p // size][p % size] for p in range(position, end)]

    def _round(self, number: int, seed: int) -> list[Encoded]:
        generator = torch.Generator().manual_seed(seed_from("round", seed, number))
        return [self._deck[i] for i in torch.randperm(len(self._deck), generator=generator).tolist()]


def find_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, by name, without the masks of others. Raises UserError when there are none."""
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}'. Give the folder that holds your 3 to 5 training pictures.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.is_dir())
    if not found:
        raise UserError(
            f"The folder '{folder}' has no pictures (looked for {' '.join(SUFFIXES)}). Put 3 to 5 of them there."
        )
    return without_masks(found)


def weighed(given: Iterable[str], place: Callable[[str], Path] = Path) -> dict[Path, int]:
    """FOLDER or FOLDER:3, three times as often as the others. place: where a folder of that name lies.

    A folder's own name never says so: by kohya's 3_name a "2024_holiday" would come two thousand times.
    """
    repeats = {}
    for text in given:
        folder, _, times = text.rpartition(":")
        counted = folder and times.isdecimal() and int(times) > 0 and not place(text).is_dir()
        repeats[place(folder if counted else text)] = int(times) if counted else 1
    return repeats


def read_pictures(
    paths: Iterable[Path],
    resolution: int,
    warn: list[str],
    captions: bool = False,
    masks: Source = "files",
    square: bool = False,
    repeats: Mapping[Path, int] = NO_REPEATS,
) -> Iterator[Picture]:
    """Reads pictures one at a time, cut to their bucket or to a square; names in `warn` what cannot be used.

    repeats: by folder, how often its pictures come in a round, where that is not once.
    """
    reader = CaptionReader(warn)
    seen: dict[bytes, Path] = {}
    for path in paths:
        mask_path = mask_file(path) if masks != "none" else None
        try:
            image, alpha = read_image(path, resolution, warn)
            mask = read_mask(mask_path) if mask_path else alpha if masks == "alpha" else None
            shape = (resolution, resolution) if square else bucket(image.size, resolution)
            caption = reader.caption(path) if captions else ""
            picture = Picture.cropped(path.name, image, shape, caption, mask, repeats.get(path.parent, 1))
        except (UserError, *DAMAGED) as error:
            which = f"{path.name} (mask {mask_path.name})" if mask_path else path.name
            warn.append(f"Skipped {which}: {_why(error)}")
            continue
        first = seen.setdefault(hashlib.sha256(picture.pixels.tobytes()).digest(), path)
        if first != path:
            name = first.name if first.parent == path.parent else first
            warn.append(f"{path.name} is the same picture as {name}: it counts twice.")
        yield picture


def _why(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # the system's own, not Pillow's
        return f"it cannot be opened ({error.strerror})."
    return f"it is no picture that can be read, or it is damaged ({error})."


def encode_pictures(host: Host, pictures: Iterable[Picture], flip: bool = False) -> Dataset:
    """Runs the host's VAE over all pictures once. Raises UserError when no picture is left."""
    source, digest = enumerate(pictures), hashlib.sha256()
    encoded: list[Encoded] = []
    while chunk := list(islice(source, ENCODED_AT_ONCE)):
        if flip:
            chunk += [(number, picture.mirrored()) for number, picture in chunk]
        for _, picture in chunk:
            digest.update(repr((picture.size, picture.caption, picture.mask is not None, picture.repeats)).encode())
            digest.update(picture.pixels.tobytes())
            digest.update(b"" if picture.mask is None else picture.mask.tobytes())
        for _, same_shape in groupby(chunk, lambda numbered: numbered[1].pixels.shape):
            encoded += _encode(host, *zip(*same_shape, strict=True))
    if not encoded:
        raise UserError(
            "None of the pictures can be used. Put 3 to 5 readable pictures (PNG, JPEG or WebP) into the folder."
        )
    return Dataset(tuple(encoded), digest.hexdigest())


def _encode(host: Host, numbers: Sequence[int], pictures: Sequence[Picture]) -> Iterator[Encoded]:
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    latents = host.latents(rearrange(pixels, "n h w c -> n c h w").float().div(127.5).sub(1).to(host.device))
    means = latents.mean.float().cpu()
    variances = [None] * len(pictures) if latents.log_variance is None else latents.log_variance.float().cpu()
    for n, p, mean, variance in zip(numbers, pictures, means, variances, strict=True):
        yield Encoded(p.name, n, mean, variance, weights_of(p.mask, mean.shape[-2:]), p.size, p.caption, p.repeats)


def weights_of(mask: np.ndarray | None, shape: Sequence[int]) -> Tensor:
    """A mask averaged over the area of each latent, [1, h, w] of mean 1: a small mask does not mean a small loss."""
    if mask is None:
        return torch.ones(1, *shape)
    averaged = F.interpolate(torch.from_numpy(mask.copy()).float()[None, None], tuple(shape), mode="area")[0]
    return averaged / averaged.mean()
