"""Reading files that a user hands over: texts within limits, and hashes without the whole file in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

LONGEST_TEXT = 2**20  # bytes of a caption, of templates, of prompts, of a line of JSON
LONGEST_TABLE = 2**24  # bytes of a table: 16 MiB are a hundred thousand captions
PART = 2**20  # bytes

if TYPE_CHECKING:
    from hashlib import _Hash


def text_bytes(path: Path, most: int = LONGEST_TEXT) -> bytes:
    """A text file's bytes. Raises OSError, and UserError, with a message that continues the file's name.

    Decoding, splitting and parsing take many times the memory of a text.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(f"has more than {most >> 20} MiB, the limit of such a text. Is it another file?")
    return data


def hashed(path: Path) -> _Hash:
    """A file's SHA-256, read a part at a time (hashlib.file_digest is newer than Python 3.10). Raises OSError."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART):
            total.update(part)
    return total
