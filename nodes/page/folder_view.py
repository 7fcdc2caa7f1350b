"""Images of a folder in ComfyUI's input directory: described as training uses them."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from ...ti_train.data.image_files import DAMAGED, has_colours, read_thumbnail
from ...ti_train.data.picture import bucket
from ...ti_train.errors import UserError
from ...ti_train.files import state_of
from ...ti_train.text import Remarks
from ...ti_train.user_files import hashed
from ..tensors import side_to_train_at
from ..training_images import captions_of, input_folder, inside_input, listings_of

THUMBNAIL = 256  # pixels
KNOWN = 4096  # images whose size is remembered
USUAL_SIDE = 512  # pixels: Stable Diffusion 1's; no published model has less
UNREADABLE = (*DAMAGED, UserError, Image.DecompressionBombError)


def describe_folder(folder: str, subfolders: bool, resolution: int, square: bool) -> dict[str, Any]:
    """The images, the resolution that they are trained at, and the problems of each (kinds that the page translates).

    resolution: 0 for the model's own. That is not known here, so `side` is 0 too. Raises UserError if the folder has no
    images, or is outside of the input directory.
    """
    listings = listings_of(folder, subfolders)
    remarks = Remarks(remark for listing in listings for remark in listing.remarks(captions=True, masks=True))
    captions = {
        path: caption
        for listing in listings
        for path, caption in zip(listing.images, captions_of(listing, remarks), strict=True)
    }
    masks = {path: mask for listing in listings for path, mask in listing.masks.items()}
    there = {path: state for path in (*captions, *masks.values()) if (state := state_of(path))}
    sizes = {path: size_of(path, *there[path]) for path in captions if path in there}
    most = resolution or USUAL_SIDE
    side = side_to_train_at([size for size in sizes.values() if size], most, square)
    copies = identical({path: there[path].size for path, size in sizes.items() if size})
    pictures = []
    for path, size in sizes.items():
        described: dict[str, Any] = {"file": path.relative_to(input_folder()).as_posix()}
        described |= {"changed": there[path].changed, "caption": captions[path], "warnings": [], "crop": None}
        if size is None:
            described["warnings"].append({"kind": "unreadable"})
        else:
            shape, wanted = (((s, s) if square else bucket(size, s)) for s in (side, most))
            described |= {"width": size[0], "height": size[1], "crop": part_kept(size, shape)}
            if size[0] < wanted[1] or size[1] < wanted[0]:
                small = {"kind": "small", "width": size[0], "height": size[1], "resolution": most}
                described["warnings"].append(small)
        if (mask := masks.get(path)) in there and is_coloured(mask, *there[mask]):
            described["warnings"].append({"kind": "coloured", "mask": mask.name})
        if path in copies:
            described["warnings"].append({"kind": "copy", "of": copies[path].name})
        pictures.append(described)
    return {"pictures": pictures, "side": side if resolution else 0, "error": "", "remarks": remarks}


def has_no_files(folder: str) -> bool:
    """Whether a folder of the input directory is still to be made or filled."""
    try:
        path = inside_input(folder)
    except UserError:
        return False
    try:
        return path != input_folder() and not any(path.iterdir())
    except (OSError, ValueError):  # ValueError: what no name can be
        return not os.path.isdir(path)


@lru_cache(maxsize=KNOWN)  # a PNG file is decoded for its EXIF rotation, which may stand at the end
def size_of(path: Path, *_state: int) -> tuple[int, int] | None:
    """Width and height after EXIF rotation; None if the file cannot be read."""
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 are rotated by 90 degrees
            return (picture.height, picture.width) if turned else picture.size
    except UNREADABLE:
        return None


@lru_cache(maxsize=KNOWN)
def is_coloured(mask: Path, *_state: int) -> bool:
    """Whether a mask file looks like a training image; one that cannot be read does not."""
    try:
        return has_colours(read_thumbnail(mask, THUMBNAIL)[0])
    except UNREADABLE:
        return False


def part_kept(size: tuple[int, int], shape: tuple[int, int]) -> list[float]:
    """Left, top, width and height of the trained area, as fractions of the image's (width, height).

    shape: (height, width) of the bucket.
    """
    parts = [kept / length for kept, length in zip(shape[::-1], size, strict=True)]
    width, height = (part / max(parts) for part in parts)
    return [(1 - width) / 2, (1 - height) / 2, width, height]


def identical(lengths: Mapping[Path, int]) -> dict[Path, Path]:
    """Duplicate -> the first file with the same bytes. Only files of equal length are read."""
    shared = Counter(lengths.values())
    first: dict[bytes, Path] = {}
    copies = {}
    for path in (path for path, length in lengths.items() if shared[length] > 1):
        with suppress(OSError):  # it has just been deleted
            original = first.setdefault(hashed(path).digest(), path)
            if original is not path:
                copies[path] = original
    return copies


def scaled_down(path: Path) -> bytes:
    """The thumbnail as a JPEG file. Raises the errors in UNREADABLE."""
    small, _ = read_thumbnail(path, THUMBNAIL)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return data.getvalue()
