"""Training pictures: found, checked, cropped, and turned into latents once.

Only the latents stay in memory (kilobytes a picture), so five hundred pictures cost no more than five. Which picture
comes when follows from the seed and the position alone: nothing needs to be remembered to go on after an interruption.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from .errors import UserError
from .hosts.base import Host, Size
from .masks import Source, mask_file, without_masks

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
MAX_PIXELS = 200_000_000
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error)  # what Pillow's decoders raise on a damaged file
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF's orientation
ENCODED_AT_ONCE = 4  # pictures through the VAE: one batch's memory, however many there are


@dataclass(frozen=True)
class Picture:
    """A picture as it is trained on, uint8 [h, w, 3], with its file's name, where it was cut from and its caption.

    mask: how much each pixel counts, uint8 [h, w]; None: all alike.
    """

    name: str
    pixels: np.ndarray
    size: Size
    caption: str = ""
    mask: np.ndarray | None = None

    @classmethod
    def cropped(
        cls,
        name: str,
        image: Image.Image,
        shape: tuple[int, int],
        caption: str = "",
        mask: Image.Image | None = None,
    ) -> Picture:
        """The middle of an RGB image, and of its mask in mode L, scaled to shape (height, width) in pixels.

        Raises UserError for a mask of other proportions than the image, and for one that leaves nothing to learn.
        """
        pixels, size = crop(image, shape)
        return cls(name, pixels, size, caption, None if mask is None else _crop_mask(mask, image.size, shape))


@dataclass(frozen=True)
class Dataset:
    """Latents of all pictures, [N, C, h, w] fp32 on the CPU, with names, sizes, captions and a hash of it all.

    weights: how much each place of the latents counts in the loss, [N, 1, h, w], of mean 1 in every picture.
    """

    mean: Tensor
    log_variance: Tensor | None
    weights: Tensor
    names: tuple[str, ...]
    sizes: tuple[Size, ...]
    captions: tuple[str, ...]
    fingerprint: str
    resolution: int

    def __len__(self) -> int:
        return len(self.names)

    def order(self, position: int, count: int, seed: int) -> list[int]:
        """Which pictures come at `position` .. `position + count` of an endless sequence of shuffled rounds."""
        return [self._round(p // len(self), seed)[p % len(self)] for p in range(position, position + count)]

    def _round(self, number: int, seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_from("round", seed, number))
        return list(torch.randperm(len(self), generator=generator).tolist())

    def draw(self, indices: list[int], generator: torch.Generator) -> Tensor:
        """Latents [B, C, h, w], sampled anew from the VAE's posterior where it has one."""
        mean = self.mean[indices]
        if self.log_variance is None:
            return mean
        return mean + (0.5 * self.log_variance[indices]).exp() * torch.randn(mean.shape, generator=generator)


def seed_from(*parts: object) -> int:
    """A seed from the names of what it is for: streams of one run never meet."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def find_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, by name, without the masks of others. Raises UserError when there are none."""
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}'. Give the folder that holds your 3 to 5 training pictures.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    found = without_masks(found)
    if not found:
        raise UserError(
            f"The folder '{folder}' has no pictures (looked for {' '.join(SUFFIXES)}). Put 3 to 5 of them there."
        )
    return found


def read_pictures(
    paths: Iterable[Path], resolution: int, warn: list[str], captions: bool = False, masks: Source = "files"
) -> Iterator[Picture]:
    """Reads pictures one at a time, cropped to resolution x resolution; names in `warn` what cannot be used."""
    for path in paths:
        mask_path = mask_file(path) if masks != "none" else None
        try:
            image, alpha = _open(path, resolution)
            mask = _open_mask(mask_path) if mask_path else alpha if masks == "alpha" else None
            caption = _caption(path, warn) if captions else ""
            picture = Picture.cropped(path.name, image, (resolution, resolution), caption, mask)
        except UserError as error:
            which = f"{path.name} (mask {mask_path.name})" if mask_path else path.name
            warn.append(f"Skipped {which}: {error}")
            continue
        except Image.DecompressionBombError as error:  # Pillow's own limit, which a program may have set lower
            warn.append(f"Skipped {path.name}: it is too large ({error}).")
            continue
        except DAMAGED as error:
            warn.append(f"Skipped {path.name}: it is no picture that can be read, or it is damaged ({error}).")
            continue
        yield picture


def _open(path: Path, resolution: int) -> tuple[Image.Image, Image.Image | None]:
    """A picture on white, and its alpha channel where it has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is our own, and said
        with Image.open(path) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise UserError(
                    f"it has {width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} megapixels."
                )
            if min(width, height) < resolution / 8:
                raise UserError(
                    f"it has {width} x {height} pixels; enlarging it to {resolution} would teach blur "
                    f"(the limit is {resolution // 8} pixels)."
                )
            picture = eight_bits(upright(file))
            return on_white(picture), picture.convert("RGBA").getchannel("A") if has_alpha(picture) else None


def _open_mask(path: Path) -> Image.Image:
    """Raises UserError."""
    try:
        with Image.open(path) as file:
            return eight_bits(upright(file)).convert("L")
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise UserError(f"the mask is no picture that can be read, or it is damaged ({error}).") from None


def upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says. (Pillow's exif_transpose fails where it cannot write the whole block anew.)"""
    turn = TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return picture if turn is None else picture.transpose(turn)


def eight_bits(picture: Image.Image) -> Image.Image:
    """Pillow would clip 16 bits a pixel at 255."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))


def has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def on_white(picture: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white, where dropping the alpha would show what lies hidden there."""
    picture = eight_bits(picture)
    if has_alpha(picture):
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def crop(image: Image.Image, shape: tuple[int, int]) -> tuple[np.ndarray, Size]:
    """The largest centred part of an image with the proportions of shape (height, width), scaled to it."""
    height, width = shape
    pixels = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))
    scale = max(height / image.height, width / image.width)
    top, left = round((scale * image.height - height) / 2), round((scale * image.width - width) / 2)
    return pixels, Size((image.height, image.width), (top, left), shape)


def square(image: Image.Image, side: int) -> tuple[np.ndarray, Size]:
    """The largest centred square of an image, uint8 [side, side, 3]."""
    return crop(image, (side, side))


def _crop_mask(mask: Image.Image, image_size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    (width, height), (mask_width, mask_height) = image_size, mask.size
    if abs(mask_width * height - width * mask_height) > max(*image_size, *mask.size):  # more than a pixel of rounding
        raise UserError(
            f"the mask has {mask_width} x {mask_height} pixels and the picture {width} x {height}: "
            "they do not cover each other. Save the mask in the picture's size."
        )
    cut = np.asarray(ImageOps.fit(mask, shape[::-1], Image.Resampling.BOX))
    if not cut.any():
        raise UserError(
            "the mask is black wherever the picture is used, which leaves nothing to learn. White marks what to learn."
        )
    return cut


def caption_file(picture: Path) -> Path:
    return picture.with_suffix(".txt")


def read_caption(file: Path) -> str:
    """One line of text. Raises OSError and UnicodeDecodeError."""
    return " ".join(file.read_text(encoding="utf-8-sig").split())


def _caption(path: Path, warn: list[str]) -> str:
    sidecar = caption_file(path)
    try:
        return read_caption(sidecar)
    except FileNotFoundError:
        warn.append(f"{path.name} has no caption ({sidecar.name} is missing): the template is used without one.")
    except (OSError, UnicodeDecodeError) as error:
        warn.append(
            f"The caption {sidecar.name} cannot be read as UTF-8 text ({error}): the template is used without one."
        )
    return ""


def encode_pictures(host: Host, pictures: Iterable[Picture], flip: bool = False) -> Dataset:
    """Runs the host's VAE over all pictures once. Raises UserError when no picture is left."""
    source, digest = iter(pictures), hashlib.sha256()
    means, variances, weights, names, sizes, captions, side = [], [], [], [], [], [], 0
    while chunk := list(islice(source, ENCODED_AT_ONCE)):
        if flip:
            chunk += [mirrored(picture) for picture in chunk]
        stacked = np.stack([p.pixels for p in chunk])
        digest.update(stacked.tobytes())
        digest.update(repr([(p.caption, p.mask is not None) for p in chunk]).encode())
        digest.update(b"".join(p.mask.tobytes() for p in chunk if p.mask is not None))
        latents = host.latents(torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(host.device))
        means.append(latents.mean.float().cpu())
        if latents.log_variance is not None:
            variances.append(latents.log_variance.float().cpu())
        weights += [weights_of(picture.mask, latents.mean.shape[-2:]) for picture in chunk]
        names += [p.name for p in chunk]
        sizes += [p.size for p in chunk]
        captions += [p.caption for p in chunk]
        side = stacked.shape[1]
    if not names:
        raise UserError(
            "None of the pictures can be used. Put 3 to 5 readable pictures (PNG, JPEG or WebP) into the folder."
        )
    return Dataset(
        torch.cat(means),
        torch.cat(variances) if variances else None,
        torch.stack(weights),
        tuple(names),
        tuple(sizes),
        tuple(captions),
        digest.hexdigest(),
        side,
    )


def mirrored(picture: Picture) -> Picture:
    mask = None if picture.mask is None else picture.mask[:, ::-1]
    return replace(picture, pixels=picture.pixels[:, ::-1], mask=mask)


def weights_of(mask: np.ndarray | None, shape: Sequence[int]) -> Tensor:
    """A mask averaged over the area of each latent, [1, h, w] of mean 1: a small mask does not mean a small loss."""
    if mask is None:
        return torch.ones(1, *shape)
    averaged = F.interpolate(torch.from_numpy(mask.copy()).float()[None, None], tuple(shape), mode="area")[0]
    return averaged / averaged.mean()
