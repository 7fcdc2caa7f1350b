"""Captions, from the text file beside an image or from its folder's table.

Tables have the format of image folders on the Hugging Face Hub: metadata.jsonl or metadata.csv with the columns
file_name and text. An image's own text file takes precedence.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import write_atomically

TABLES = ("metadata.jsonl", "metadata.csv")


def caption_file(picture: Path) -> Path:
    return picture.with_suffix(".txt")


def read_caption(file: Path) -> str:
    """One line of text. Raises OSError and UnicodeDecodeError."""
    return one_line(decode(file.read_bytes())[0])


def write_caption(picture: Path, text: str) -> str:
    """Writes the text file beside a picture, which an empty caption removes; returns the caption. Raises OSError."""
    file, caption = caption_file(picture), one_line(text)
    if caption:
        write_atomically(file, caption.encode())
    else:
        file.unlink(missing_ok=True)
    return caption


def one_line(text: str) -> str:
    return " ".join(text.split())


def decode(data: bytes) -> tuple[str, bool]:
    """A file's text, and whether its encoding had to be guessed. Raises UnicodeDecodeError.

    UTF-16 is detected by its byte order mark or by zero bytes, which no other text has. Anything else that is not UTF-8
    is read as Windows-1252, the encoding of most old files in Western Europe.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16"), False
    if b"\0" in data:
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le"), False
    try:
        return data.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return data.decode("cp1252"), True


class CaptionReader:
    """Looks up captions, reading each folder's table once; appends to `warn` what cannot be read."""

    def __init__(self, warn: list[str]) -> None:
        self.warn = warn
        self.tables: dict[Path, dict[str, str]] = {}

    def caption(self, picture: Path) -> str:
        """The caption, or an empty string."""
        sidecar = caption_file(picture)
        if sidecar.is_file():
            return one_line(self._text(sidecar))
        folder = picture.parent
        if folder not in self.tables:
            self.tables[folder] = dict(self._rows(folder))
        if picture.name not in self.tables[folder]:
            table = next((name for name in TABLES if (folder / name).is_file()), None)
            where = f"{sidecar.name} is missing" + (f", and {table} has no entry for it" if table else "")
            self.warn.append(f"{picture.name} has no caption ({where}): it is trained with the template alone.")
        return self.tables[folder].get(picture.name, "")

    def _text(self, file: Path) -> str:
        try:
            text, guessed = decode(file.read_bytes())
        except (OSError, UnicodeDecodeError) as error:
            self.warn.append(f"{file.name} cannot be read as text ({error}) and is ignored. Save it as UTF-8.")
            return ""
        if guessed:
            self.warn.append(
                f"{file.name} is not UTF-8. As Windows-1252 it reads '{one_line(text)[:60]}'. "
                "If that is wrong, save it as UTF-8."
            )
        return text

    def _rows(self, folder: Path) -> Iterator[tuple[str, str]]:
        """File names and captions of a folder's tables."""
        for file in (folder / name for name in TABLES if (folder / name).is_file()):
            text, bad = self._text(file), []
            for number, row in enumerate(_csv(text) if file.suffix == ".csv" else _jsonl(text), 1):
                name, caption = row.get("file_name"), row.get("text")
                if isinstance(name, str) and isinstance(caption, str):
                    yield name, one_line(caption)
                else:
                    bad.append(str(number))
            if bad:
                which = ", ".join(bad[:5]) + (" and more" if len(bad) > 5 else "")
                self.warn.append(f"{file.name}: entry {which} has no valid 'file_name' and 'text' and is ignored.")


def _csv(text: str) -> Iterator[dict[str, Any]]:
    yield from csv.DictReader(io.StringIO(text, newline=""))


def _jsonl(text: str) -> Iterator[dict[str, Any]]:
    """One object per line; an empty one for a line that is not a JSON object."""
    for line in filter(str.strip, text.split("\n")):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        yield row if isinstance(row, dict) else {}
