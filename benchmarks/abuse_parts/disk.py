"""A disk that fails at will (disk.c), for the processes that this one starts. Linux, with a C compiler."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SOURCE = Path(__file__).with_name("disk.c")
PRELOAD = "LD_PRELOAD"
ONCE, FROM_THEN_ON, KILL, TORN = 1, 2, 3, 4  # the actions of disk.c
FAULTS = {
    "EIO once": (ONCE, errno.EIO),
    "disk full": (FROM_THEN_ON, errno.ENOSPC),
    "read-only": (FROM_THEN_ON, errno.EROFS),
    "killed": (KILL, 0),
    "killed inside a write": (TORN, 0),
}


@dataclass(frozen=True)
class Call:
    """A recorded call: open, empty (opened, and emptied), write, sync, truncate, rename, unlink, mkdir, in use."""

    kind: str
    path: Path
    other: str = ""  # the new path of a rename
    offset: int = 0  # bytes
    data: bytes = b""


def on_failing_disk(folder: Path) -> None:
    """Runs this program again, on a disk that fails at will, and exits with its status; not if it is on one already.

    folder: for what is compiled.
    """
    if PRELOAD in os.environ:
        return
    library = folder / "disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True)
    raise SystemExit(subprocess.call([sys.executable, *sys.argv], env=os.environ | {PRELOAD: str(library)}))


def watch(folder: Path, record: BinaryIO | None = None, as_windows: bool = False) -> None:
    """Counts the calls of this process that change files in a folder. as_windows: files in use are not replaced."""
    _disk().abuse_watch(os.fsencode(folder), -1 if record is None else record.fileno(), int(as_windows))


def fail(call: int, fault: str) -> None:
    """At the `call`th of them from watch() on, counted from 1. fault: of FAULTS."""
    _disk().abuse_at(ctypes.c_long(call), *FAULTS[fault])


def _disk() -> ctypes.CDLL:
    return ctypes.CDLL(None)  # that of LD_PRELOAD is loaded already


def recorded(file: Path) -> Iterator[Call]:
    """The calls that were recorded in a file."""
    with file.open("rb") as lines:
        for line in lines:
            kind, path, other, offset, size = line.decode().rstrip("\n").split("\t")
            yield Call(kind, Path(path), other, int(offset), lines.read(int(size)))
