"""The embeddings folder for the page: its files, renamed and removed with what belongs to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths

from ...ti_train.errors import UserError
from ...ti_train.names import PICTURES, READABLE, bare_name, check_name, numbered
from ..files import embedding_files
from .live import runs

# What belongs to an embedding: its file's name without extension, and one of these
BELONGS = (".resume", ".csv", "-loss.png", ".png", ".jpg", ".jpeg", ".webp", ".preview.png", ".json", ".txt", ".info")


def listed() -> list[dict[str, Any]]:
    """The embeddings, newest first."""
    found = [(file, path.stat()) for file in embedding_files() if (path := _path(file))]
    newest_first = sorted(found, key=lambda pair: -pair[1].st_mtime)
    return [{"file": file, "changed": stat.st_mtime, "size": stat.st_size} for file, stat in newest_first]


def rename(file: str, name: str) -> str:
    """Renames an embedding within its folder; returns its new file. Raises UserError, OSError."""
    path, name = _own(file), check_name(name)
    renamed = [(old, old.parent / (name + old.name[len(path.stem) :])) for old in _with_companions(path)]
    for old, new in renamed:
        if new.exists() and not new.samefile(old):  # on some systems upper and lower case are the same file
            raise UserError(f"'{new.name}' exists already. Choose another name.")
    for old, new in renamed:
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
    return (Path(file).parent / (name + path.suffix)).as_posix()


def remove(file: str) -> Path:
    """Moves an embedding out of the embeddings folder; returns its new path. Raises UserError, OSError."""
    path = _own(file)
    to = Path(folder_paths.get_user_directory()) / "ti_train" / "removed"
    to.mkdir(parents=True, exist_ok=True)
    files = list(_with_companions(path))
    name = next(
        n for n in numbered(path.stem) if not any((to / (n + old.name[len(path.stem) :])).exists() for old in files)
    )
    for old in files:
        shutil.move(old, to / (name + old.name[len(path.stem) :]))
    return to / (name + path.suffix)


def _own(file: str) -> Path:
    """A file of the list, by the name that the page sent. Raises UserError."""
    path = _path(file) if file in embedding_files() else None
    if path is None:
        raise UserError(f"'{file}' is not in the embeddings folder any more. Reload the list.")
    if any(run.status == "running" and bare_name(str(run.facts["name"])) == path.stem for run in runs):
        raise UserError(f"'{path.stem}' is being trained. Stop the training first.")
    return path


def _path(file: str) -> Path | None:
    full = folder_paths.get_full_path("embeddings", file)
    return Path(full) if full else None


def _with_companions(path: Path) -> Iterator[Path]:
    """The file, and what belongs to it, if there is no other embedding of its name to which it belongs too."""
    yield path
    twins = (path.with_suffix(kind) for kind in READABLE if kind not in PICTURES)
    if any(twin != path and twin.is_file() for twin in twins):
        return
    for ending in BELONGS:
        beside = path.with_name(path.stem + ending)
        if beside != path and beside.is_file():
            yield beside
