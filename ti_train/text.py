"""Text of users: how it is encoded in files, when two names are the same, and how messages quote it."""

from __future__ import annotations

import codecs
import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

SEPARATORS = ",;\t"  # of a CSV file; spreadsheets write semicolons where the comma is for decimals
NAMED = 5  # of several things that a message is about
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: controls, marks of direction, half characters, line ends
NOT_IN_FILES = {0: " ", 0xFEFF: " "}  # a reader takes them for the end of a text, or for its encoding
JOINERS = "\u200c\u200d"  # of the same categories, but a part of words and emoji

MARKS = {  # UTF-32's little-endian mark begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SAMPLE = 2**16  # bytes by which an encoding is told
WIDE = {"utf-32-le": (4, 0), "utf-32-be": (4, 3), "utf-16-le": (2, 0), "utf-16-be": (2, 1)}  # unit, place of ASCII


def composed(text: str) -> str:
    """Unicode's composed form (NFC), in which keyboards write; macOS' file names are decomposed."""
    return unicodedata.normalize("NFC", text)


def unicode_forms(text: str) -> set[str]:
    """The ways in which the same text may be written: as it is, composed and decomposed."""
    return {text, composed(text), unicodedata.normalize("NFD", text)}


def name_key(name: str) -> str:
    """Equal for names that differ in letter case or Unicode form only."""
    return composed(composed(name).casefold())


def csv_rows(text: str, restkey: str | None = None) -> csv.DictReader[str]:
    """The rows of a table, by the names in its first line. restkey: of the cells that have no name."""
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    return csv.DictReader(io.StringIO(text, newline=""), restkey=restkey, delimiter=separator)


def json_value(text: str | bytes) -> Any:
    """A JSON value. Its strings have a mark in place of half a character, which nothing else can write.

    Raises ValueError.
    """
    try:
        plain = json.dumps(json.loads(text), ensure_ascii=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return json.loads(whole(plain))


def whole(text: str) -> str:
    """Text with a mark in place of half a character, which no encoding can write."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_whole(text: str) -> bool:
    """Whether text can be written. A file's name may have bytes of another encoding, which are half characters here."""
    return whole(text) == text


def one_line(text: str) -> str:
    """Text on one line that any text file can hold: blanks in place of line ends, zeros and byte order marks."""
    return " ".join(whole(text).translate(NOT_IN_FILES).split())


def printable(text: str) -> str:
    """One line of text in which nothing acts on a terminal or a page: escapes such as \\x1b for what is not seen."""
    return "".join(map(_seen, text))


def _seen(letter: str) -> str:
    hidden = unicodedata.category(letter) in UNSEEN and letter not in JOINERS
    return letter.encode("unicode_escape").decode() if hidden else letter


class Remarks(list[str]):
    """Remarks for the user, made printable: they have names and texts of files in them."""

    def __init__(self, remarks: Iterable[str] = ()) -> None:
        super().__init__(map(printable, remarks))

    def append(self, remark: str) -> None:
        super().append(printable(remark))

    def extend(self, remarks: Iterable[str]) -> None:
        super().extend(map(printable, remarks))

    def __iadd__(self, remarks: Iterable[str]) -> Remarks:  # type: ignore[misc, override]
        self.extend(remarks)
        return self


def listed(names: Sequence[str]) -> str:
    """The first of some names, for a sentence."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def with_rest(lines: Sequence[str], most: int = 10) -> list[str]:
    """The first of some lines, and how many more there are."""
    return [*lines[:most], *([f"... and {len(lines) - most} more."] if len(lines) > most else [])]


def decode(data: bytes) -> tuple[str, bool]:
    """A file's text, and whether its encoding had to be guessed. Raises UnicodeDecodeError.

    What is not Unicode is read as Windows-1252, the encoding of most old files in Western Europe.
    """
    try:
        return unicode_text(data), False
    except UnicodeDecodeError:
        if b"\0" in data.rstrip(b"\0") or data.startswith(tuple(MARKS)):
            raise
        return data.rstrip(b"\0").decode("cp1252"), True


def unicode_text(data: bytes) -> str:
    """A file's text in UTF-8, UTF-16 or UTF-32. Raises UnicodeDecodeError.

    The last two are detected by their byte order mark or by their zero bytes, which no other text has but at its end.
    """
    encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), None)
    if encoding is None and b"\0" in data.rstrip(b"\0"):
        encoding = _wide_encoding(data)
    if encoding:
        text = data.decode(encoding).rstrip("\0")
        if "\0" in text:
            raise _not_text(encoding, data)
        return text
    return data.rstrip(b"\0").decode("utf-8-sig")


def _wide_encoding(data: bytes) -> str:
    """The encoding without a mark in which most of the first characters are ASCII. Raises UnicodeDecodeError."""
    beginning = data[:SAMPLE]
    for encoding, (unit, place) in WIDE.items():
        letters = [beginning[i : i + unit] for i in range(0, len(beginning), unit)]
        ascii_only = [
            letter for letter in letters if letter[place : place + 1] != b"\0" and letter.count(0) == unit - 1
        ]
        if 2 * len(ascii_only) > len(letters):
            return encoding
    raise _not_text("utf-8", data)


def _not_text(encoding: str, data: bytes) -> UnicodeDecodeError:
    place = data.index(b"\0")
    return UnicodeDecodeError(encoding, data, place, place + 1, "zero byte within the text")
