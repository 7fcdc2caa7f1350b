"""The listing of a folder: its training images, and the caption and the mask that belong to each by name.

Every host lists folders here, so that all train on the same images. Hidden files are left out. Names may differ in
letter case and Unicode form; a file that is named exactly like its image goes first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..text import composed, listed, name_key
from .image_files import SUFFIXES
from .masks import CONDITION, FOLDER, PLAIN, named_as_mask

CAPTIONS = (".txt", ".caption")  # the second is the default of kohya's scripts
TABLES = ("metadata.jsonl", "metadata.csv")
REMOVED = "removed"  # the subfolder for images that the user has removed from training
NOT_TRAINED = {FOLDER, REMOVED, "__macosx"}
FORMS: tuple[Callable[[str], str], ...] = (str, composed, name_key)  # in which names are compared, strictest first
UNUSED = "No image has this name, or its image uses another file."
Claim = tuple[tuple[Any, ...], Path, Path]  # precedence, the lowest first; image; a file that may belong to it


@dataclass(frozen=True)
class Listing:
    """The images of a folder, sorted by name, and the files that belong to them."""

    folder: Path
    images: Sequence[Path]
    captions: Mapping[Path, Path]  # image -> its text file
    masks: Mapping[Path, Path]  # image -> its mask
    tables: Sequence[Path]  # of captions
    dead: Sequence[Path]  # links to nothing, and what else is no file
    unused_captions: Sequence[Path]
    unused_masks: Sequence[Path]
    doubtful: Sequence[Path]  # images that are named like masks

    @classmethod
    def of(cls, folder: Path) -> Listing:
        """Raises UserError if the folder cannot be read."""
        try:
            inner = [path for path in sorted(folder.iterdir()) if name_key(path.name) == FOLDER and path.is_dir()]
            (files, dead), *masked = map(_files_in, (folder, *inner))
        except OSError as error:
            raise UserError(f"The folder '{folder}' cannot be read ({error.strerror or error}).") from None
        pictures = [path for path in filter(_is_picture, files) if not _is_preview(path)]
        masks, doubtful = _masks_among(pictures)
        mask_files = [*masks, *(path for found, _ in masked for path in found if _is_picture(path))]
        images = [path for path in pictures if path not in masks]
        names, texts = Names(images), [path for path in files if path.suffix.lower() in CAPTIONS]
        captions = _assigned(claim for file in texts for claim in _caption_claims(file, names))
        used = _assigned(claim for file in mask_files for claim in _mask_claims(file, names, folder))
        taken = {*captions.values(), *used.values()}
        return cls(
            folder,
            images,
            captions,
            used,
            tables=[path for name in TABLES for path in files if name_key(path.name) == name],
            dead=[path for found in (dead, *(others for _, others in masked)) for path in found],
            unused_captions=[path for path in texts if path not in taken],
            unused_masks=[path for path in mask_files if path not in taken and masks.get(path) != CONDITION],
            doubtful=doubtful,
        )

    def remarks(self, captions: bool, masks: bool) -> list[str]:
        """What of the folder is not used, for a reader of captions or masks."""
        parts = (
            (self.dead, "Skipped {}: there is no file, or the link leads to none."),
            (self.unused_captions if captions else (), "Not used as a caption: {}. " + UNUSED),
            (self.unused_masks if masks else (), "Not used as a mask: {}. " + UNUSED),
            (self.doubtful, "{} is named like a mask, but there is no image of that name: it is trained as an image."),
        )
        return [
            sentence.format(listed([path.relative_to(self.folder).as_posix() for path in paths]))
            for paths, sentence in parts
            if paths
        ]


class Names:
    """Finds images by their names, with or without the ending."""

    def __init__(self, images: Iterable[Path]) -> None:
        self._stems: list[dict[str, list[Path]]] = [{} for _ in FORMS]
        self._names: list[dict[str, list[Path]]] = [{} for _ in FORMS]
        for image in images:
            for form, stems, names in zip(FORMS, self._stems, self._names, strict=True):
                stems.setdefault(form(image.stem), []).append(image)
                names.setdefault(form(image.name), []).append(image)

    def by_stem(self, stem: str) -> tuple[int, list[Path]]:
        """The images that are meant by a name without ending, and how far the names differ."""
        return _first(stem, [*self._stems, *self._names])

    def by_name(self, name: str) -> Path | None:
        """The only image that is meant by a name with or without ending."""
        _, found = _first(name, [*self._names, *self._stems])
        return found[0] if len(found) == 1 else None


def _first(name: str, tables: Sequence[Mapping[str, list[Path]]]) -> tuple[int, list[Path]]:
    levels = enumerate(zip(FORMS * 2, tables, strict=True))
    return next(((rank, table[form(name)]) for rank, (form, table) in levels if form(name) in table), (0, []))


def subfolders(root: Path) -> list[Path]:
    """The subfolders of a folder, without hidden ones and those for masks and removed images."""
    found: list[Path] = []
    for parent, names, _ in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".") and name_key(name) not in NOT_TRAINED]
        found += [Path(parent, name) for name in names]
    return sorted(found)


def _files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files that are not hidden, sorted by name, and what is called like an image or a caption but is no file."""
    there = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in there if path.is_file()]
    others = [path for path in there if path.suffix.lower() in (*SUFFIXES, *CAPTIONS)]
    return files, [path for path in others if not path.is_file() and not path.is_dir()]


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _is_preview(file: Path) -> bool:
    """Whether it is the picture of an embedding beside it (formats/preview.py)."""
    name, dot, _ = file.name.rpartition(".preview.")
    return bool(dot) and file.with_name(f"{name}.safetensors").is_file()


def _masks_among(pictures: Sequence[Path]) -> tuple[dict[Path, str], list[Path]]:
    """The image files that are masks, with their kinds, and those that are called so but are images.

    NAME-mask without an image NAME is one, where no other mask is used.
    """
    called = {path: found for path in pictures if (found := named_as_mask(path))}
    names = Names(pictures)
    paired = {path for path, (image, _) in called.items() if names.by_stem(image)[1]}
    doubtful = [path for path, (_, kind) in called.items() if kind == PLAIN and not paired]
    return {path: kind for path, (_, kind) in called.items() if path not in doubtful}, doubtful


def _caption_claims(file: Path, names: Names) -> Iterator[Claim]:
    rank, images = names.by_stem(file.stem)
    order = (rank, CAPTIONS.index(file.suffix.lower()), not file.suffix.islower())
    return ((order, image, file) for image in images)


def _mask_claims(file: Path, names: Names, folder: Path) -> Iterator[Claim]:
    found = named_as_mask(file)
    if found and found[1] == CONDITION:
        return
    inside = file.parent != folder
    rank, images = names.by_stem(file.stem) if inside else (0, [])
    kind = ""
    if found and not images:
        (rank, images), kind = names.by_stem(found[0]), found[1]
    for image in images:
        yield (inside, rank, len(kind), kind, file.name != image.name), image, file


def _assigned(claims: Iterable[Claim]) -> dict[Path, Path]:
    """Image -> the file with the first claim to it."""
    owned: dict[Path, Path] = {}
    for _, image, file in sorted(claims):
        owned.setdefault(image, file)
    return owned
