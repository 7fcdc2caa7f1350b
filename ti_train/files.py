"""Writing files so that a reader never sees half of one, and what to call them."""

from __future__ import annotations

import os
from pathlib import Path


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
