"""Training images in the tab: folders, uploads, thumbnails with masks, and captions."""

from __future__ import annotations

import filecmp
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..ti_train.data.captions import CaptionReader, write_caption
from ..ti_train.data.dataset import find_pictures, listing_with_images
from ..ti_train.data.image_files import DAMAGED, SUFFIXES, read_mask, read_thumbnail
from ..ti_train.data.listing import Listing, Names
from ..ti_train.data.masks import Source, named_as_mask
from ..ti_train.data.removal import move_to_removed
from ..ti_train.errors import UserError
from ..ti_train.files import write_atomically
from ..ti_train.names import check_name, numbered
from ..ti_train.text import Remarks, is_whole, listed, name_key
from . import folders

THUMBNAIL = 192  # pixels
FADED = 0.85  # how far the untrained part of a thumbnail is blended with white


@dataclass
class Shown:
    """What the tab shows of an image folder."""

    thumbnails: list[tuple[Image.Image, str]] = field(default_factory=list)  # with file names
    captions: list[list[str]] = field(default_factory=list)  # rows of a name and a caption
    masks: int = 0  # images with a mask
    problems: Remarks = field(default_factory=Remarks)


def shown(folder: str, source: Source) -> Shown:
    """The images of a folder; what a mask excludes is faded. Raises UserError."""
    place, found = folders.picture_folder(folder), Shown()
    listing = listing_with_images(place)
    reader = CaptionReader(listing, found.problems)
    found.problems += listing.remarks(captions=True, masks=source != "none")
    for path in listing.images:
        if not is_whole(path.name):
            found.problems.append(f"{path.name} is trained but not shown: its name is in another encoding. Rename it.")
            continue
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
        return small, read_mask(mask_file, Remarks())
    return small, alpha if source == "alpha" else None


def uploaded(files: Sequence[Any], name: str, chosen: str) -> tuple[str, str]:
    """Copies uploads into the chosen folder, or into a new one that is named after the embedding if none is chosen.

    Returns the folder's name and a note. Raises UserError.
    """
    sources = [_sent(file) for file in files]
    if others := [source.name for source in sources if source.suffix.lower() not in SUFFIXES]:
        raise UserError(f"{listed(others)}: no image. Upload images and masks ({' '.join(SUFFIXES)}).")
    folder = chosen or _new_folder(name)
    place = folders.picture_folder(folder, write=True)
    with folders.writing(place):
        place.mkdir(parents=True, exist_ok=True)
        images = _copy(sources, place)
    note = f"Added {len(sources)} file(s) to '{folder}'."
    if images and chosen and _of_another(chosen, name):
        note += f" '{chosen}' holds the images of another embedding. For a folder of its own press New folder first."
    return folder, note


def _sent(file: Any) -> Path:
    """gradio's file of an upload. Raises UserError for one that no page has sent.

    Who speaks to the server directly can name any file of it: gradio 4 refuses that, gradio 3 hands over a copy.
    """
    path = Path(getattr(file, "name", file))  # gradio 3 gives an open file, gradio 4 a path
    folder = os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio")
    if not Path(getattr(file, "orig_name", path)).resolve().is_relative_to(Path(folder).resolve()):
        raise UserError(f"{path.name} was not uploaded. Upload it from the page.")
    return path


def _of_another(folder: str, name: str) -> bool:
    """Whether a folder is named after an embedding other than `name` that is there."""
    owner = re.sub(r"-\d+$", "", folder)
    return owner != name and any(folders.embedding_path(known).is_file() for known in (folder, owner))


def _new_folder(name: str) -> str:
    """Raises UserError for an invalid name."""
    names = numbered(check_name(name))
    return next(free for free in names if not (folders.training() / folders.PICTURES / free).exists())


def _copy(sources: Sequence[Path], place: Path) -> list[Path]:
    """Copies uploads, and returns those that are images. Raises UserError and OSError.

    An image overwrites no other and takes no caption or mask of one: it gets a name of its own. Its masks in the same
    upload follow it; other masks replace those of the images in the folder.
    """
    there = Listing.of(place).images
    masks = {source: found[0] for source in sources if (found := named_as_mask(source))}
    images = [source for source in sources if source not in masks]
    uploads, known = Names(images), Names(there)
    taken = {name_key(image.stem) for image in there}
    for image in images:
        own = {mask: of for mask, of in masks.items() if image in uploads.by_stem(of)[1]}
        _copy_together({image: image.stem} | own, _free(image, image.stem, own, place, taken), place)
    for mask, of in masks.items():
        if not uploads.by_stem(of)[1]:
            names = [image.stem for image in known.by_stem(of)[1]] or [_free(mask, of, {}, place, taken)]
            for name in names:
                _copy_together({mask: of}, name, place)
    return images


def _free(source: Path, stem: str, masks: Mapping[Path, str], place: Path, taken: set[str]) -> str:
    """The first name that is not taken, also for the masks, or under which the same file is there; takes it."""
    for name in numbered(stem):
        target = _target(source, stem, name, place)
        if target.exists() and filecmp.cmp(target, source, shallow=False):
            break
        files = [target, *(_target(mask, of, name, place) for mask, of in masks.items())]
        if name_key(name) not in taken and not any(file.exists() for file in files):
            break
    taken.add(name_key(name))
    return name


def _copy_together(files: Mapping[Path, str], name: str, place: Path) -> None:
    """Copies files under one name instead of the one that each begins with. Raises OSError."""
    for source, stem in files.items():
        write_atomically(_target(source, stem, name, place), source.read_bytes())


def _target(source: Path, stem: str, name: str, place: Path) -> Path:
    return place / (name + source.name[len(stem) :])


def remove(folder: str, picture: str) -> str:
    """Moves an image out of the training set, with its caption and mask; returns a note. Raises UserError."""
    found = {path.name: path for path in find_pictures(folders.picture_folder(folder, write=True))}
    if picture not in found:
        raise UserError(f"The folder '{folder}' has no image '{picture}'. Click an image first.")
    with folders.writing(found[picture].parent):
        moved = move_to_removed(found[picture])
    return f"Moved {picture} to '{folder}/{moved.parent.name}'."


def write_captions(folder: str, rows: Sequence[Sequence[str]], shown: Sequence[Sequence[str]]) -> int:
    """Writes the captions (see write_caption) that differ from those shown; returns how many. Raises UserError.

    What the user has not edited stays as it is on disk: lines, another encoding, or no text that could be read.
    """
    place = folders.picture_folder(folder, write=True)
    pictures = {path.name: path for path in find_pictures(place)}
    before = {name: caption for name, caption in shown}
    given = {name: str(caption or "") for name, caption in rows if name}  # users can add rows to the table
    edited = {name: caption for name, caption in given.items() if caption != before.get(name, "")}
    for name in edited:
        if name not in pictures:
            raise UserError(f"The folder '{folder}' has no image '{name}'. Choose the folder again.")
    with folders.writing(place):
        for name, caption in edited.items():
            write_caption(pictures[name], caption)
    return len(edited)
