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
from ..ti_train.data.masks import ENDINGS, Source, mask_file
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
    found, reader = Shown(), CaptionReader([])
    for path in find_pictures(folders.picture_folder(folder)):
        try:
            small, mask = thumbnail(path, source)
        except (UserError, *DAMAGED) as error:
            found.problems.append(f"{path.name} cannot be used: {error}")
            continue
        if mask:
            faded = Image.blend(small, Image.new("RGB", small.size, "white"), FADED)
            small = Image.composite(small, faded, mask.resize(small.size))
            found.masks += 1
        found.thumbnails.append((small, path.name))
        found.captions.append([path.name, reader.caption(path)])
    return found


def thumbnail(path: Path, source: Source) -> tuple[Image.Image, Image.Image | None]:
    """The thumbnail of an image, and its mask. Raises UserError and the errors in DAMAGED."""
    file = mask_file(path) if source != "none" else None
    small, alpha = read_thumbnail(path, THUMBNAIL)
    if file:
        return small, read_mask(file)
    return small, alpha if source == "alpha" else None


def uploaded(files: Sequence[Any], name: str, chosen: str) -> str:
    """Copies uploads into a new folder named after the embedding, or masks of the chosen folder's images into that one.

    Returns the folder's name. Raises UserError.
    """
    sources = [Path(getattr(file, "name", file)) for file in files]  # gradio 3 gives an open file, gradio 4 a path
    pictures = folders.training() / folders.PICTURES
    if {source.name for source in sources} <= names_of_masks(chosen):
        folder = chosen
    else:
        folders.embedding_file(name)  # the same rules as for embeddings
        numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
        folder = next(free for free in numbered if not (pictures / free).exists())
        (pictures / folder).mkdir(parents=True)
    for source in sources:
        shutil.copyfile(source, pictures / folder / source.name)
    return folder


def names_of_masks(folder: str) -> set[str]:
    """Possible file names for masks of a folder's images; empty if it has no images."""
    try:
        pictures = find_pictures(folders.picture_folder(folder or ""))
    except UserError:
        return set()
    return {picture.stem + ending for picture in pictures for ending in ENDINGS}


def write_captions(folder: str, rows: Sequence[Sequence[str]]) -> int:
    """Writes the caption files; an empty caption removes its file. Raises UserError and OSError."""
    pictures = {path.name: path for path in find_pictures(folders.picture_folder(folder))}
    given = [row for row in rows if row[0]]  # users can add rows to the table
    for name, _ in given:
        if name not in pictures:
            raise UserError(f"The folder '{folder}' has no image '{name}'. Choose the folder again.")
    return sum(bool(write_caption(pictures[name], str(caption or ""))) for name, caption in given)
