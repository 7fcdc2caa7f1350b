"""The embeddings folder for the page: its files, renamed and removed with what belongs to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import folder_paths

from ...ti_train.errors import UserError
from ...ti_train.files import state_of
from ...ti_train.names import check_name, numbered
from ...ti_train.training.belongings import belongings, move
from ...ti_train.training.checkpoint import RunFiles
from ..files import embedding_files
from . import records
from .live import runs


def listed() -> list[dict[str, Any]]:
    """The embeddings, newest first."""
    found = [(file, state) for file in embedding_files() if (path := _path(file)) and (state := state_of(path))]
    newest_first = sorted(found, key=lambda pair: -pair[1].changed)
    return [{"file": file, "changed": state.changed / 1e9, "size": state.size} for file, state in newest_first]


def rename(file: str, name: str) -> str:
    """Renames an embedding within its folder; returns its new file. Raises UserError, OSError."""
    path, old = _own(file), PurePosixPath(Path(file).as_posix())
    new_name = check_name(name) + path.suffix
    new, to = old.parent / new_name, path.parent / new_name
    with _not_in_training(path, to):
        move(path, to, str(new.with_suffix("")))
    _rename_runs(str(old.with_suffix("")), str(new.with_suffix("")))
    return str(new)


def _rename_runs(old: str, new: str) -> None:
    """In the records and on the pages."""
    records.rename(old, new)
    for run in list(runs):
        if run.facts["name"] == old:
            run.facts = records.renamed(run.facts, new)
            run.send("run", run.snapshot())


def remove(file: str) -> str:
    """Moves an embedding out of the embeddings folder; returns its new path in ComfyUI's folder. Raises as rename()."""
    path, user = _own(file), Path(folder_paths.get_user_directory())
    folder = user / "ti_train" / "removed"
    with _not_in_training(path):
        endings = [old.name[len(path.stem) :] for old in belongings(path)]
        name = next(n for n in numbered(path.stem) if not any((folder / (n + end)).exists() for end in endings))
        to = folder / (name + path.suffix)
        move(path, to, name)
    return to.relative_to(user.parent).as_posix()


@contextmanager
def _not_in_training(*files: Path) -> Iterator[None]:
    """Keeps runs of these embeddings from starting. Raises UserError if one runs, in whichever process."""
    with ExitStack() as locks:
        for file in {file.as_posix().lower(): file for file in files}.values():  # upper and lower case may be the same
            locks.enter_context(RunFiles(file.parent, file.stem, {}).locked())
        yield


def _own(file: str) -> Path:
    """A file of the list, by the name that the page sent. Raises UserError."""
    path = _path(file) if file in embedding_files() else None
    if path is None:
        raise UserError(f"'{file}' is not in the embeddings folder any more. Reload the list.")
    return path


def _path(file: str) -> Path | None:
    full = folder_paths.get_full_path("embeddings", file)
    return Path(full) if full else None
