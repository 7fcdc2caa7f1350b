"""Images that a user takes out of a training set: they are moved to a subfolder, which is not trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..names import numbered
from ..text import composed
from .listing import REMOVED, Listing


def move_to_removed(picture: Path) -> Path:
    """Moves an image with its caption and mask to the subfolder `removed/`, without overwriting; returns its new path.

    If another image shares the caption or mask, they are copied. Raises OSError.
    """
    listing, folder, stem = Listing.of(picture.parent), picture.parent, picture.stem
    owned = (listing.captions, listing.masks)
    files = [picture, *(files[picture] for files in owned if picture in files)]
    shared = {file for files in owned for other, file in files.items() if other != picture}

    def place(file: Path, name: str) -> Path:
        ending = composed(file.name)[len(composed(stem)) :]  # their letter case may differ
        return folder / REMOVED / file.relative_to(folder).with_name(file.name if name == stem else name + ending)

    name = next(name for name in numbered(stem) if not any(place(file, name).exists() for file in files))
    for file in reversed(files):
        place(file, name).parent.mkdir(parents=True, exist_ok=True)
        carry = shutil.copy2 if file in shared else shutil.move
        carry(file, place(file, name))
    return place(picture, name)
