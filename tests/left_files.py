"""What a run has left in a folder."""

from __future__ import annotations

from pathlib import Path


def emptied(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name, which are removed."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    contents = {name: path.read_bytes() for name, path in files.items()}
    for path in files.values():
        path.unlink()
    return contents
