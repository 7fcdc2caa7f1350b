"""Which names cannot stand in one list: no two embeddings may share a file of a fleet's folder."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UserError
from ..text import name_key
from ..training.checkpoint import RunFiles
from .records import OWN


class OwnFiles:
    """What each embedding of a list may write. Names are compared as all file systems do."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # name -> where it is in the list
        self._files: dict[str, str] = {}  # file -> whose it is
        self._folders: dict[str, str] = {}  # folder with such files -> whose they are

    def add(self, name: str, where: str) -> None:
        """Raises UserError if another embedding of the list has the name, or one of its files."""
        first = self._names.setdefault(name_key(name), where)
        if first != where:
            raise UserError(f"the name '{name}' is used by {first} too. Each embedding needs its own.")
        files = own_files(name)
        folders = {file[: slash.start()] for file in files for slash in re.finditer("/", file)}
        taken = (*map(self._files.get, (*files, *folders)), *map(self._folders.get, files))
        if owner := next(filter(None, taken), None):
            raise UserError(f"the name '{name}' is that of a file of {owner}. Choose another one.")
        self._files |= dict.fromkeys(files, f"'{name}' ({where})")
        self._folders |= dict.fromkeys(folders, f"'{name}' ({where})")


def own_files(name: str) -> list[str]:
    """The paths that an embedding's training may write, below the fleet's folder; claims without their numbers."""
    run, records = RunFiles(Path(), name, {}), Path(OWN, name)
    files = [run.embedding, run.beside, run.state, records.with_name(f"{records.name}.json")]
    files += [records.with_name(f"{records.name}.claim")]
    files += [records / own for own in ("loss.csv", "loss.png", "samples")]
    return [re.sub(r"(\.claim)-\d+(?=/|\.|$)", r"\1", name_key(file.as_posix())) for file in files]
