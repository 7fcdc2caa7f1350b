"""Training images in the tab: folders, uploads, thumbnails with masks, and captions."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..ti_train.data.captions import CaptionReader, write_caption
from ..ti_train.data.dataset import find_pictures, listing_with_images
from ..ti_train.data.image_files import DAMAGED, SUFFIXES, read_mask, read_thumbnail
from ..ti_train.data.listing import Listing
from ..ti_train.data.masks import Source
from ..ti_train.data.removal import move_to_removed
from ..ti_train.errors import UserError
from ..ti_train.names import check_name, numbered
from ..ti_train.text import listed
from . import folders

THUMBNAIL = 192  # pixels
FADED = 0.85  # how far the untrained part of a thumbnail is blended with white


@dataclass
class Shown:
    """What the tab shows of an image folder."""

    thumbnails: list[tuple[Image.Image, str]] = field(default_factory=list)  # with file names
    captions: list[list[str]] = field(default_factory=list)  # rows of a name and a caption
    masks: int = 0  # images with a mask
    problems: list[str] = field(default_factory=list)


def shown(folder: str, source: Source) -> Shown:
    """The images of a folder; what a mask excludes is faded. Raises UserError."""
    place, found = folders.picture_folder(folder), Shown()
    listing = listing_with_images(place)
    reader = CaptionReader(listing, found.problems)
    found.problems += listing.remarks(captions=True, masks=source != "none")
    for path in listing.images:
        try:
            small, mask = thumbnail(path, listing.masks.get(path), source)
        except (UserError, *DAMAGED) as error:
            found.problems.append(f"{path.name} cannot be used: {error}")
            continue
        if mask:
            faded = Image.blend(small, Image.new("RGB", small.size, "white"), FADED)
            small = Image.composite(small, faded, mask.resize(small.size))
            found.masks += 1
        found.thumbnails.append((small, path.name))
        found.captions.append([path.name, reader.caption(path) or ""])
    return found


def thumbnail(path: Path, mask_file: Path | None, source: Source) -> tuple[Image.Image, Image.Image | None]:
    """The thumbnail of an image, and its mask. Raises UserError and the errors in DAMAGED."""
    small, alpha = read_thumbnail(path, THUMBNAIL)
    if mask_file and source != "none":
        return small, read_mask(mask_file, [])
    return small, alpha if source == "alpha" else None


def uploaded(files: Sequence[Any], name: str, chosen: str) -> tuple[str, str]:
    """Copies uploads into the chosen folder, or else into a new one that is named after the embedding.

    The images of another embedding that is trained already are not mixed with this one's. Returns the folder's name and
    a note. Raises UserError.
    """
    sources = [Path(getattr(file, "name", file)) for file in files]  # gradio 3 gives an open file, gradio 4 a path
    if others := [source.name for source in sources if source.suffix.lower() not in SUFFIXES]:
        raise UserError(f"{listed(others)}: no image. Upload images and masks ({' '.join(SUFFIXES)}).")
    place = folders.picture_folder(chosen) if chosen else None
    listing = Listing.of(place) if place and place.is_dir() else None
    masks = {source for source in sources if listing and listing.is_mask_name(source.name)}
    if chosen and (masks.issuperset(sources) or not _of_another(chosen, name)):
        folder, why = chosen, ""
    else:
        folder = _new_folder(name)
        why = f" '{chosen}' holds the images of another embedding; to add to them, enter its name." if chosen else ""
    place = folders.picture_folder(folder, write=True)
    place.mkdir(parents=True, exist_ok=True)
    for source in sources:
        target = place / source.name
        shutil.copyfile(source, target if source in masks else _free(target, source))
    return folder, f"Added {len(sources)} file(s) to '{folder}'.{why}"


def _of_another(folder: str, name: str) -> bool:
    """Whether a folder is named after an embedding other than `name` that is there."""
    owner = re.sub(r"-\d+$", "", folder)
    return owner != name and any(folders.embedding_path(known).is_file() for known in (folder, owner))


def _new_folder(name: str) -> str:
    """Raises UserError for an invalid name."""
    names = numbered(check_name(name))
    return next(free for free in names if not (folders.training() / folders.PICTURES / free).exists())


def _free(target: Path, source: Path) -> Path:
    """A path that overwrites no other image."""
    paths = map(target.with_stem, numbered(target.stem))
    return next(path for path in paths if not path.exists() or filecmp.cmp(path, source, shallow=False))


def remove(folder: str, picture: str) -> str:
    """Moves an image out of the training set, with its caption and mask; returns a note. Raises UserError."""
    found = {path.name: path for path in find_pictures(folders.picture_folder(folder, write=True))}
    if picture not in found:
        raise UserError(f"The folder '{folder}' has no image '{picture}'. Click an image first.")
    try:
        moved = move_to_removed(found[picture])
    except OSError as error:
        raise UserError(f"'{picture}' cannot be moved ({error.strerror or error}).") from None
    return f"Moved {picture} to '{folder}/{moved.parent.name}'."


def write_captions(folder: str, rows: Sequence[Sequence[str]]) -> int:
    """Writes the caption files; an empty caption removes its file. Raises UserError and OSError."""
    pictures = {path.name: path for path in find_pictures(folders.picture_folder(folder, write=True))}
    given = [row for row in rows if row[0]]  # users can add rows to the table
    for name, _ in given:
        if name not in pictures:
            raise UserError(f"The folder '{folder}' has no image '{name}'. Choose the folder again.")
    return sum(bool(write_caption(pictures[name], str(caption or ""))) for name, caption in given)
