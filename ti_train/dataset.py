"""Training pictures: found, checked, cropped square, and turned into latents once.

Only the latents stay in memory (kilobytes a picture), so five hundred pictures cost no more than five. Which picture
comes when follows from the seed and the position alone: nothing needs to be remembered to go on after an interruption.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from .errors import UserError
from .hosts.base import Host, Size

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
    """A square picture, uint8 [R, R, 3], with its file's name, its size before cropping and its caption."""

    name: str
    pixels: np.ndarray
    size: Size
    caption: str = ""


@dataclass(frozen=True)
class Dataset:
    """Latents of all pictures, [N, C, h, w] fp32 on the CPU, with names, sizes, captions and a hash of it all."""

    mean: Tensor
    log_variance: Tensor | None
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
    """The picture files of a folder, by name. Raises UserError when there are none."""
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}'. Give the folder that holds your 3 to 5 training pictures.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(
            f"The folder '{folder}' has no pictures (looked for {' '.join(SUFFIXES)}). Put 3 to 5 of them there."
        )
    return found


def read_pictures(paths: Iterable[Path], resolution: int, warn: list[str], captions: bool = False) -> Iterator[Picture]:
    """Reads pictures one at a time, cropped to resolution x resolution; names in `warn` what cannot be used."""
    for path in paths:
        try:
            picture = _open(path, resolution)
        except UserError as error:
            warn.append(f"Skipped {path.name}: {error}")
            continue
        except Image.DecompressionBombError as error:  # Pillow's own limit, which a program may have set lower
            warn.append(f"Skipped {path.name}: it is too large ({error}).")
            continue
        except DAMAGED as error:
            warn.append(f"Skipped {path.name}: it is no picture that can be read, or it is damaged ({error}).")
            continue
        yield Picture(path.name, *square(picture, resolution), _caption(path, warn) if captions else "")


def _open(path: Path, resolution: int) -> Image.Image:
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
            return on_white(upright(file))


def upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says. (Pillow's exif_transpose fails where it cannot write the whole block anew.)"""
    turn = TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return picture if turn is None else picture.transpose(turn)


def on_white(picture: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white, where dropping the alpha would show what lies hidden there."""
    if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip at 255
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def square(picture: Image.Image, side: int) -> tuple[np.ndarray, Size]:
    """The largest centred square of a picture, uint8 [side, side, 3]."""
    pixels = np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS))
    scaled = side / min(picture.size)
    top, left = (round((scaled * length - side) / 2) for length in (picture.height, picture.width))
    return pixels, Size((picture.height, picture.width), (top, left), (side, side))


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
    means, variances, names, sizes, captions, side = [], [], [], [], [], 0
    while chunk := list(islice(source, ENCODED_AT_ONCE)):
        if flip:
            chunk += [replace(p, pixels=p.pixels[:, ::-1]) for p in chunk]
        stacked = np.stack([p.pixels for p in chunk])
        digest.update(stacked.tobytes())
        digest.update(repr([p.caption for p in chunk]).encode())
        latents = host.latents(torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(host.device))
        means.append(latents.mean.float().cpu())
        if latents.log_variance is not None:
            variances.append(latents.log_variance.float().cpu())
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
        tuple(names),
        tuple(sizes),
        tuple(captions),
        digest.hexdigest(),
        side,
    )
