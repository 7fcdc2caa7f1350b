"""Atomic writes, and valid file names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import UserError

RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
UNSAFE_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` to `path` completely or not at all; an existing file stays until then. Raises OSError."""
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
    """Checks that an embedding's name is a valid file name on every system. Raises UserError."""
    if not name.strip() or name != name.strip() or name.startswith(".") or name.endswith("."):
        raise UserError(
            f"The name '{name}' is empty, or begins or ends with a dot or a space. Use a name such as my-cat."
        )
    if UNSAFE_IN_NAMES.search(name):
        raise UserError(
            f"The name '{name}' contains a character that file names must not have (< > : \" / \\ | ? *). "
            "Use letters and '-'."
        )
    if RESERVED_ON_WINDOWS.fullmatch(name):
        raise UserError(f"The name '{name}' is reserved on Windows. Use another, such as my-{name}.")
    if len(name.encode()) > 120:
        raise UserError(f"The name has {len(name.encode())} bytes; at most 120 are allowed. Use a shorter one.")
