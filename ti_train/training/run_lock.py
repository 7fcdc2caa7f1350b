"""One run at a time for each embedding: a lock file beside it.

The operating system holds the lock and lets go of it when the process ends, however it ends. So a file that a crash has
left behind locks nothing, and neither a reused process id nor a wrong clock can mislead. What is written in it only
says who the owner is.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import PassingError

if sys.platform == "win32":
    import msvcrt

    BEYOND = 1 << 20  # a locked byte cannot be read by others: one far behind the text

    def _lock(file: int) -> None:
        os.lseek(file, BEYOND, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # of file systems: NFS without its lock daemon


@contextmanager
def only_run(path: Path, name: str) -> Iterator[None]:
    """Holds the lock file `path` within the context. Raises PassingError if another run holds it, and OSError."""
    file = _locked(path, name)
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.write(file, json.dumps(owner).encode())
        os.fsync(file)
        yield
    finally:
        if os.name == "posix":  # unlinked while it is locked, so that nobody locks a file that is about to vanish
            path.unlink(missing_ok=True)
            os.close(file)
        else:
            os.close(file)
            with suppress(OSError):  # the next run has opened it already
                path.unlink(missing_ok=True)


def _locked(path: Path, name: str) -> int:
    """A descriptor of the file at `path`, locked and empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if try_lock(file) is False:
            os.close(file)
            raise PassingError(
                f"'{name}' is being trained by another run{_owner(path)}. Wait for it, stop it, or choose another name."
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                os.ftruncate(file, 0)
                return file
        os.close(file)  # its owner has just removed it


def try_lock(file: int) -> bool | None:
    """Locks an open file until it is closed; False if another process has, None if the file system has no locks."""
    try:
        _lock(file)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return None
    return True


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_bytes())
        return f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # not written yet, or removed
        return ""
