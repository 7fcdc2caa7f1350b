"""Images that a user takes out of a training set: they are moved to a subfolder, which is not trained on."""

from __future__ import annotations

import shutil
from itertools import chain, count
from pathlib import Path

from .captions import caption_file
from .dataset import find_pictures
from .masks import mask_file

REMOVED = "removed"


def move_to_removed(picture: Path) -> Path:
    """Moves an image with its caption and mask to the subfolder `removed/`, without overwriting; returns its new path.

    If another image shares the caption or mask, they are copied. Raises OSError.
    """
    folder, stem = picture.parent, picture.stem
    files = [file for file in (caption_file(picture), mask_file(picture), picture) if file and file.is_file()]
    shared = any(other.stem == stem and other != picture for other in find_pictures(folder))

    def place(file: Path, name: str) -> Path:
        return folder / REMOVED / file.relative_to(folder).with_name(name + file.name[len(stem) :])

    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    name = next(name for name in names if not any(place(file, name).exists() for file in files))
    for file in files:
        place(file, name).parent.mkdir(parents=True, exist_ok=True)
        carry = shutil.copy2 if shared and file != picture else shutil.move
        carry(file, place(file, name))
    return place(picture, name)
