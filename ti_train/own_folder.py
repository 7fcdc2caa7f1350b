"""Folders of temporary files, which are removed with what uses them, or later if their process was killed."""

from __future__ import annotations

import shutil
import uuid
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from .errors import BusyError
from .training.run_lock import only_run, try_lock

LOCK = ".lock"  # beside the folder of this name; the operating system lets go of it when the process ends


class OwnFolder:
    """A new folder in `place`, which is removed with this object. Raises OSError."""

    def __init__(self, place: Path) -> None:
        self.path = place / uuid.uuid4().hex
        with ExitStack() as stack:
            stack.enter_context(only_run(_lock_of(self.path), self.path.name))
            self.path.mkdir()
            stack.callback(shutil.rmtree, self.path, ignore_errors=True)
            weakref.finalize(self, stack.pop_all().close)


def abandoned(place: Path) -> Iterator[Path]:
    """The folders in `place` of processes that are gone; none where the file system has no locks."""
    for lock in place.glob("*" + LOCK):
        with suppress(OSError), lock.open("rb+") as file:
            if try_lock(file.fileno()):
                yield lock.with_suffix("")


def remove_abandoned(place: Path) -> None:
    for folder in list(abandoned(place)):
        with suppress(OSError, BusyError), only_run(_lock_of(folder), folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + LOCK)
