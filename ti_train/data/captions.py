"""Captions, from the text file beside an image or from its folder's table.

Tables have the format of image folders on the Hugging Face Hub: metadata.jsonl or metadata.csv with the columns
file_name and text. An image's own text file takes precedence.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError
from ..files import write_atomically
from ..text import Remarks, csv_rows, decode, json_value, listed, name_key, one_line
from ..user_files import LONGEST_TABLE, LONGEST_TEXT, text_bytes
from .listing import CAPTIONS, Listing, Names

FILE, TEXTS = "file_name", ("text", "caption")  # columns


def write_caption(picture: Path, text: str) -> str:
    """Writes the text file of a picture; returns its caption. Raises OSError.

    An empty caption removes the file. It leaves an empty one where a table or another file has a caption too.
    """
    file = Listing.of(picture.parent).captions.get(picture, picture.with_suffix(CAPTIONS[0]))
    caption = one_line(text)
    if not caption:
        file.unlink(missing_ok=True)
    if caption or CaptionReader(Listing.of(picture.parent), Remarks()).caption(picture):
        write_atomically(file, caption.encode())
    return caption


def write_table(name: str, data: bytes, pictures: Mapping[str, Path]) -> list[str]:
    """Writes a table's entries into text files beside pictures that have none; returns remarks. Raises OSError.

    pictures: path from the table's folder, as its entries have it -> picture.
    """
    remarks = Remarks()
    unknown: list[str] = []
    listings = {folder: Listing.of(folder) for folder in {picture.parent for picture in pictures.values()}}
    readers = {folder: CaptionReader(listing, Remarks()) for folder, listing in listings.items()}
    paths = {name_key(path): picture for path, picture in pictures.items()}
    names = Names(map(Path, pictures))
    for entry, caption in table_entries(name, as_text(name, data, remarks) or "", remarks):
        path = PurePosixPath(entry.replace("\\", "/"))
        alone = names.by_name(path.name)
        picture = paths.get(name_key(path.as_posix())) or (pictures[alone.as_posix()] if alone else None)
        if picture is None:
            unknown.append(entry)
        elif picture not in listings[picture.parent].captions and (caption or readers[picture.parent].caption(picture)):
            write_atomically(picture.with_suffix(CAPTIONS[0]), caption.encode())
    remarks += unknown_entries(name, unknown)
    return remarks


def table_entries(name: str, text: str, warn: Remarks) -> Iterator[tuple[str, str]]:
    """The file names and captions of a table; appends to `warn` which entries are none."""
    bad = []
    for number, row in enumerate(_csv(text) if name.lower().endswith(".csv") else _jsonl(text), 1):
        file, caption = row.get(FILE), next((row[key] for key in TEXTS if row.get(key) is not None), None)
        if isinstance(file, str) and isinstance(caption, str):
            yield file, one_line(caption)
        else:
            bad.append(str(number))
    if bad:
        warn.append(f"{name}: entry {listed(bad)} has no valid '{FILE}' and 'text' and is ignored.")


def unknown_entries(name: str, entries: list[str]) -> list[str]:
    """The remark on entries of a table without an image."""
    return [f"{name} has captions for images that are not in the folder: {listed(entries)}."] if entries else []


def as_text(name: str, data: bytes, warn: Remarks) -> str | None:
    """The text of a caption file or table; None if it is none, which is appended to `warn`."""
    try:
        text, guessed = decode(data)
    except UnicodeDecodeError as error:
        warn.append(f"{name} cannot be read as text ({error}) and is ignored. Save it as UTF-8.")
        return None
    if guessed:
        warn.append(
            f"{name} is not UTF-8. As Windows-1252 it reads '{one_line(text)[:60]}'. "
            "If that is wrong, save it as UTF-8."
        )
    return text


class CaptionReader:
    """Looks up the captions of a folder; appends to `warn` what cannot be read."""

    def __init__(self, listing: Listing, warn: Remarks) -> None:
        self.listing, self.warn = listing, warn

    def caption(self, picture: Path) -> str | None:
        """The caption; None if there is none."""
        file = self.listing.captions.get(picture)
        return one_line(self._text(file) or "") if file else self._table.get(picture)

    def lacks(self, picture: Path) -> bool:
        """Whether an image has no caption, nor a text file that cannot be read: writing one takes nothing away."""
        file = self.listing.captions.get(picture)
        text = self._text(file) if file else self._table.get(picture, "")
        return text is not None and not one_line(text)

    def missing(self, picture: Path) -> str:
        """The remark on an image without a caption."""
        tables = self.listing.tables
        where = f"{picture.stem}{CAPTIONS[0]} is missing"
        where += f", and {tables[0].name} has no entry for it" if tables else ""
        return f"{picture.name} has no caption ({where}): it is trained with the template alone."

    def _text(self, file: Path) -> str | None:
        try:
            data = text_bytes(file, LONGEST_TABLE if file in self.listing.tables else LONGEST_TEXT)
        except UserError as error:
            self.warn.append(f"{file.name} is ignored: it {error}")
            return None
        except OSError as error:
            self.warn.append(f"{file.name} cannot be read ({error.strerror or error}) and is ignored.")
            return None
        return as_text(file.name, data, self.warn)

    @cached_property
    def _table(self) -> dict[Path, str]:
        """Image -> caption, from the folder's tables."""
        names, captions = Names(self.listing.images), {}
        for file in self.listing.tables:
            unknown = []
            for name, caption in table_entries(file.name, self._text(file) or "", self.warn):
                if picture := self._meant(name, names):
                    captions[picture] = caption
                elif not self._of_subfolder(name):
                    unknown.append(name)
            self.warn += unknown_entries(file.name, unknown)
        return captions

    def _meant(self, name: str, names: Names) -> Path | None:
        """The image of a table's entry: its name, also with ./ or the path of this very folder before it."""
        path = PurePosixPath(name.replace("\\", "/"))
        ours = path.parent.name == "" or name_key(path.parent.name) == name_key(self.listing.folder.resolve().name)
        return names.by_name(path.name) if ours else None

    def _of_subfolder(self, name: str) -> bool:
        """Whether an entry is for an image of a subfolder, which is not read here."""
        return os.path.isfile(self.listing.folder / name.replace("\\", "/"))  # False too for what no name can be


def _csv(text: str) -> Iterator[dict[str, Any]]:
    """One dict per row; an empty one for the rest of a table from where it is not CSV."""
    try:
        yield from csv_rows(text)
    except csv.Error:  # such as a quotation mark that is never closed, with all that follows it
        yield {}


def _jsonl(text: str) -> Iterator[dict[str, Any]]:
    """One object per line; an empty one for a line that is not a JSON object."""
    for line in filter(str.strip, text.split("\n")):
        try:
            row = json_value(line) if len(line) <= LONGEST_TEXT else None
        except ValueError:
            row = None
        yield row if isinstance(row, dict) else {}
