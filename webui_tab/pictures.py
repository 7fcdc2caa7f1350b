"""Training pictures in the tab: folders, uploads, thumbnails and captions."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from ..ti_train.data.captions import caption_file, read_caption
from ..ti_train.data.dataset import find_pictures
from ..ti_train.data.image_files import DAMAGED, on_white, upright
from ..ti_train.errors import UserError
from ..ti_train.files import write_atomically
from . import folders

THUMBNAIL = 192  # pixels


def shown(folder: str) -> tuple[list[tuple[Image.Image, str]], list[list[str]]]:
    """Thumbnails with the files' names, and a table of names and captions. Raises UserError."""
    if not folder:
        return [], []
    thumbnails, captions = [], []
    for path in find_pictures(folders.picture_folder(folder)):
        try:
            with Image.open(path) as picture:
                picture.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # JPEG: decoded small
                small = on_white(upright(picture))
        except DAMAGED:
            continue  # the training says which pictures it cannot read
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        thumbnails.append((small, path.name))
        captions.append([path.name, caption_of(path)])
    return thumbnails, captions


def caption_of(picture: Path) -> str:
    try:
        return read_caption(caption_file(picture))
    except (OSError, UnicodeDecodeError):
        return ""


def uploaded(files: list[Any], name: str) -> str:
    """Copies uploads into a new folder, named after the word; its name. Raises UserError."""
    folders.word_file(name)  # the same rules as for words
    root = folders.training() / folders.PICTURES
    folder = next(f for n in count(1) if not (f := root / (name if n == 1 else f"{name}-{n}")).exists())
    folder.mkdir(parents=True)
    for file in files:
        source = Path(getattr(file, "name", file))  # gradio 3 gives an open file, gradio 4 a path
        shutil.copyfile(source, folder / source.name)
    return folder.name


def write_captions(folder: str, rows: list[list[str]]) -> int:
    """Writes the captions beside their pictures; an empty one removes its file. Raises UserError and OSError."""
    pictures = {path.name: path for path in find_pictures(folders.picture_folder(folder))}
    for name, caption in rows:
        if name not in pictures:
            raise UserError(f"The folder '{folder}' has no picture '{name}'. Choose the folder again.")
        file = caption_file(pictures[name])
        text = " ".join(str(caption or "").split())
        if text:
            write_atomically(file, text.encode())
        else:
            file.unlink(missing_ok=True)
    return sum(bool(str(caption or "").strip()) for _, caption in rows)
