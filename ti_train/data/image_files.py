"""Reading image files: upright, eight bits per channel, RGB on white."""

from __future__ import annotations

import struct
import warnings
from contextlib import nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
import PIL
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import UserError
from ..text import Remarks

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")
ISO_SUFFIXES = {".avif": "AVIF", ".heic": "HEIC", ".heif": "HEIC"}  # AVIF needs Pillow 11.3, HEIC a plug-in
ISO_BRANDS = {b"avi": "AVIF", b"hei": "HEIC", b"hev": "HEIC", b"mif1": "HEIC"}  # within the first box of such a file
OTHER_FILES = {b"<": "a web page or other text", b"\xff\x0a": "JPEG XL", b"%PDF": "a PDF", b"8BPS": "PSD"}
MAX_PIXELS = 200_000_000
COLOURED = 40  # of 255: the difference between the channels of a pixel
LARGE = 8_000_000  # pixels of an image whose thumbnail waits for its turn: a server draws many at once
DAMAGED = (  # what Pillow raises on a damaged file: RuntimeError for AVIF, IndexError for GIF, AssertionError for PNG
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, RuntimeError, LookupError, AssertionError),
)
_turn = Lock()
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF's orientation


def read_image(path: Path, resolution: int, warn: Remarks) -> tuple[Image.Image, Image.Image | None]:
    """A training image in RGB, and its alpha channel in mode L if it has one.

    Raises UserError, and what is in DAMAGED.
    """
    with _opened(path) as file:
        width, height = file.size
        if min(width, height) < resolution / 8:
            raise UserError(
                f"it has {width} x {height} pixels, too few to enlarge to {resolution} "
                f"(at least {resolution // 8} are needed)."
            )
        # In a phone's MPO file the other frames are a depth map or a thumbnail.
        if getattr(file, "is_animated", False) and file.format != "MPO":
            warn.append(f"{path.name} has several frames; only the first one is used.")
        picture = eight_bits(upright(file))
        return on_white(picture), picture.convert("RGBA").getchannel("A") if has_alpha(picture) else None


def read_thumbnail(path: Path, side: int) -> tuple[Image.Image, Image.Image | None]:
    """A picture in RGB, at most side x side pixels, and its alpha channel in mode L where it has one, at its own size.

    Raises UserError, and what is in DAMAGED.
    """
    with _opened(path) as file, _turn if file.width * file.height > LARGE else nullcontext():
        file.draft("RGB", (2 * side, 2 * side))  # a camera's JPEG is decoded at a fraction of its size
        picture = eight_bits(upright(file))
        mode = "RGBA" if has_alpha(picture) else "RGB"
        picture = picture if picture.mode == mode else picture.convert(mode)
        alpha = picture.getchannel("A") if mode == "RGBA" else None
        picture.thumbnail((side, side))  # before it is copied
        return on_white(picture), alpha


def read_mask(path: Path, warn: Remarks) -> Image.Image:
    """A mask in mode L; appends to `warn` if it looks like a training image. Raises UserError."""
    try:
        with _opened(path) as file:
            mask = eight_bits(upright(file))
            coloured, grey = has_colours(mask), mask.convert("L")
    except DAMAGED as error:
        raise UserError(f"the mask is not a readable image, or it is damaged ({error}).") from None
    if coloured:
        warn.append(
            f"{path.name} is used as a mask, but it has colours. If it is a training image, give it another name."
        )
    return grey


def has_colours(image: Image.Image) -> bool:
    """Whether a tenth of an image is coloured, as in photographs, but not in masks."""
    colours = image if image.mode == "RGB" else image.convert("RGB")
    small = np.asarray(colours.resize((64, 64), Image.Resampling.BOX), np.int16)
    return float((np.ptp(small, axis=-1) > COLOURED).mean()) > 0.1


def _opened(path: Path) -> Image.Image:
    """Raises UserError, and what is in DAMAGED."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS has a message of its own
            file = Image.open(path)
    except Image.DecompressionBombError as error:  # Pillow's own limit, which a host may have lowered
        raise UserError(f"it is too large ({error}). Scale it down.") from None
    except UnidentifiedImageError:
        if why := _why_unknown(path):
            raise UserError(why) from None
        raise
    width, height = file.size
    if width * height > MAX_PIXELS:
        raise UserError(
            f"it has {width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} megapixels. Scale it down."
        )
    return file


def _why_unknown(path: Path) -> str:
    """Why Pillow cannot read a file, by its first bytes, since names may be wrong; "" if that is not known."""
    with path.open("rb") as file:
        beginning = file.read(32)
    suffix, format = path.suffix.lower(), ""
    if not beginning:
        return "the file is empty."
    if beginning[4:8] == b"ftyp":
        format = next((name for brand, name in ISO_BRANDS.items() if brand in beginning[8:]), "")
        other = "" if format or suffix in ISO_SUFFIXES else "a video"
    else:
        other = next((name for start, name in OTHER_FILES.items() if beginning.startswith(start)), "")
    if other:
        return f"it is {other}, although its name ends in {suffix}."
    format = format or ISO_SUFFIXES.get(suffix, "")
    if not format:
        return ""
    right = ISO_SUFFIXES.get(suffix) == format
    wrong = "" if right else f"it is {format}, although its name ends in {suffix}, and "
    kind = suffix[1:].upper() if right else format
    return f"{wrong}Pillow {PIL.__version__} cannot read {kind} files here. Save it as PNG or JPEG."


def upright(picture: Image.Image) -> Image.Image:
    """Applies the EXIF orientation. (Pillow's exif_transpose fails if it cannot rewrite the whole EXIF block.)"""
    turn = TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return picture if turn is None else picture.transpose(turn)


def eight_bits(picture: Image.Image) -> Image.Image:
    """Scales 16-bit images to 8 bits, where Pillow would clip at 255. Raises UserError."""
    if picture.mode == "F":
        raise UserError("its pixels are floating-point numbers without a defined white. Save it as PNG.")
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))


def has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def on_white(picture: Image.Image) -> Image.Image:
    """Converts to RGB on white: dropping the alpha channel would reveal arbitrary hidden colours."""
    picture = eight_bits(picture)
    if has_alpha(picture):
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")
