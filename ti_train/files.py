"""Atomic writes, files that may vanish, and the file names of images."""

from __future__ import annotations

import codecs
import glob
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LONGEST_HEADER = 2**24  # bytes: models have less than one MiB, and Python takes 25 times as much to read it
MOST_OF_NAME = 200  # bytes of 255: a caption has the name of its image, a run's files have shorter ones
TOKENS = 1 << 64  # threads, and machines that share a folder, write the same file at the same time
SCANNED = {"nt": (0.02, 0.1, 0.5)}  # seconds to wait before another try to replace a file, by os.name


class State(NamedTuple):
    """By which a file that has changed is told. changed: in nanoseconds since 1970; size: in bytes."""

    changed: int
    size: int


def state_of(path: Path) -> State | None:
    """None if the file is no longer there: whoever lists a folder leaves it out."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return State(stat.st_mtime_ns, stat.st_size)


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of its subfolders, without what is removed meanwhile."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` to `path` completely or not at all; an existing file stays until then. Raises OSError.

    Also across a power cut: the data are on disk before the name, and the name before this returns.
    """
    beginning = os.fsencode(path.name)[:MOST_OF_NAME].decode(errors="ignore")
    temporary = path.with_name(f".{beginning}.{secrets.randbelow(TOKENS)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Removes what killed processes have left of writes to `path`; for the only process that writes it now."""
    remove_unfinished_in(path.parent, glob.escape(path.name))


def remove_unfinished_in(folder: Path, names: str = "*") -> None:
    """The same for files in a folder whose names fit a pattern."""
    _remove(folder.glob(f".{names}.*"))


def _remove(unfinished: Iterable[Path]) -> None:
    for file in unfinished:
        if file.suffix[1:].isdecimal():
            with suppress(OSError):  # nobody reads it
                file.unlink(missing_ok=True)


def replace(temporary: Path, path: Path, system: str = os.name) -> None:
    """Puts a file in another one's place. On Windows a virus scanner or an indexer may have it open for a moment."""
    for pause in SCANNED.get(system, ()):
        try:
            os.replace(temporary, path)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # its journal does it
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(opened)
    finally:
        os.close(opened)


def safetensors_damage(path: Path) -> str:
    """What is wrong with a safetensors file's length, or is there in its place, continuing its name; "" if nothing is.

    The format: eight bytes with the header's length, a JSON header with the tensors' places, the tensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if text := _downloaded_text(file.read(200)):
            return text
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        beginning = file.read(1)
        if size <= 8 or beginning != b"{":
            return "" if size else "is empty. Download or save it again"
        try:
            if length > LONGEST_HEADER:
                raise ValueError("no header of a model")
            header = json.loads(beginning + file.read(length - 1))
            ends = [part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"]
            surplus = size - 8 - length - max(ends, default=0)
            if not isinstance(surplus, int):
                raise TypeError("a length that is no whole number")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return f"is incomplete or damaged ({size:,} bytes). Download or save it again"
    if surplus < 0:
        return f"is incomplete: {-surplus:,} of {size - surplus:,} bytes are missing. Download or copy it again"
    return f"has {surplus:,} bytes after its end, which no tool accepts. Download or copy it again" if surplus else ""


def _downloaded_text(start: bytes) -> str:
    """What a download left in place of a binary file, continuing its name; "" unless its first bytes are text."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start).lstrip("\ufeff\r\n\t ")
    except UnicodeDecodeError:
        return ""
    line, *more = text.splitlines() or [""]
    if not line or not all(part.expandtabs().isprintable() for part in (line, *more)):
        return ""
    if line.startswith("version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself. Run `git lfs pull`, or download the file from its page"
    if text.lower().startswith(("<!doctype", "<html", "<?xml")):
        return "is a web page, such as one that asks for a login, not the file itself. Download the file again"
    return f"is a text, not the file itself: '{line[:80]}'. Download the file again"


def file_name(prompt: str) -> str:
    """A prompt as a file name: its letters and digits, at most 60 of them."""
    words = "".join(c if c.isalnum() else " " for c in prompt).split()
    return "-".join(words)[:60] or "picture"
