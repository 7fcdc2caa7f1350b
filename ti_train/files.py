"""Writing files so that a reader never sees half of one, and what they may be called."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import UserError

RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
UNSAFE_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def write_atomically(path: Path, data: bytes) -> None:
    """Puts `data` at `path` whole or not at all; what stood there stays until then. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_name(prompt: str) -> str:
    """A prompt as a file name: its letters and digits, at most 60 of them."""
    words = "".join(c if c.isalnum() else " " for c in prompt).split()
    return "-".join(words)[:60] or "picture"


def check_name(name: str) -> None:
    """A word's name is its file's name too, on every system. Raises UserError."""
    if not name.strip() or name != name.strip() or name.startswith(".") or name.endswith("."):
        raise UserError(
            f"The name '{name}' is empty, or begins or ends with a dot or a space. Name the word like a file: my-cat."
        )
    if UNSAFE_IN_NAMES.search(name):
        raise UserError(
            f"The name '{name}' has a character that file names cannot have (< > : \" / \\ | ? *). Use letters and '-'."
        )
    if RESERVED_ON_WINDOWS.fullmatch(name):
        raise UserError(f"The name '{name}' is reserved on Windows. Choose another, such as my-{name}.")
    if len(name.encode()) > 120:
        raise UserError(
            f"The name has {len(name.encode())} bytes; file systems take 120 beside the ending. Shorten it."
        )
