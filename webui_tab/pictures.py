"""Training images in the tab: folders, uploads, thumbnails with masks, and captions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from ..ti_train.data.captions import CaptionReader, write_caption
from ..ti_train.data.dataset import find_pictures
from ..ti_train.data.image_files import DAMAGED, read_mask, read_thumbnail
from ..ti_train.data.listing import Listing
from ..ti_train.data.masks import Source
from ..ti_train.errors import UserError
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
    find_pictures(place)
    listing = Listing.of(place)
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
        return small, read_mask(mask_file)
    return small, alpha if source == "alpha" else None


def uploaded(files: Sequence[Any], name: str, chosen: str) -> str:
    """Copies uploads into a new folder named after the embedding, or masks of the chosen folder's images into that one.

    Returns the folder's name. Raises UserError.
    """
    sources = [Path(getattr(file, "name", file)) for file in files]  # gradio 3 gives an open file, gradio 4 a path
    pictures = folders.training() / folders.PICTURES
    there = folders.picture_folder(chosen) if chosen else None
    if there and there.is_dir() and all(map(Listing.of(there).is_mask_name, (source.name for source in sources))):
        folder = chosen
    else:
        folders.embedding_file(name)  # the same rules as for embeddings
        numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
        folder = next(free for free in numbered if not (pictures / free).exists())
        (pictures / folder).mkdir(parents=True)
    for source in sources:
        shutil.copyfile(source, pictures / folder / source.name)
    return folder


def write_captions(folder: str, rows: Sequence[Sequence[str]]) -> int:
    """Writes the caption files; an empty caption removes its file. Raises UserError and OSError."""
    pictures = {path.name: path for path in find_pictures(folders.picture_folder(folder))}
    given = [row for row in rows if row[0]]  # users can add rows to the table
    for name, _ in given:
        if name not in pictures:
            raise UserError(f"The folder '{folder}' has no image '{name}'. Choose the folder again.")
    return sum(bool(write_caption(pictures[name], str(caption or ""))) for name, caption in given)
