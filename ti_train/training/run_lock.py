"""One run at a time for each embedding: a lock file beside it.

The operating system holds the lock and lets go of it when the process ends, however it ends. So a file that a crash has
left behind locks nothing, and neither a reused process id nor a wrong clock can mislead. What is written in it only
says who the owner is.

Some file systems have no locks, or keep those of a machine that is lost. There a run may be taken over while its owner
sleeps; when the owner wakes up, it sees in the file that the run is no longer its own.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ..errors import BusyError
from ..text import json_value

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


# of file systems: NFS without its lock daemon, Lustre mounted without flock
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
BOOT = Path("/proc/sys/kernel/random/boot_id")
Holder = Literal["ours", "another's", "nobody's"]


@contextmanager
def only_run(path: Path, name: str) -> Iterator[Callable[[], Holder]]:
    """Holds the lock file `path` within the context, and says whose it is. Raises BusyError if it is another run's.

    Raises OSError too.
    """
    file = _locked(path, name)
    text = json.dumps(this_process() | {"since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode()

    def holder() -> Holder:
        try:
            found = path.read_bytes()
        except OSError:
            return "nobody's"
        return "ours" if text.startswith(found) else "another's"  # on a full disk it may be empty

    try:
        os.ftruncate(file, 0)
        os.write(file, text)
        os.fsync(file)
        yield holder
    finally:
        if os.name != "posix":
            os.close(file)
        with suppress(OSError):  # the disk is read-only now; on Windows the next run may have opened it
            if holder() != "another's":
                path.unlink(missing_ok=True)
        if os.name == "posix":  # unlinked while it is locked, so that nobody locks a file that is about to vanish
            os.close(file)


def this_process() -> dict[str, Any]:
    """What tells this process from all others that share a folder with it."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine()}


@cache
def _machine() -> str:
    """Tells apart machines of one name, such as containers, which are often called alike."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return f"{uuid.getnode():x}"


def unlock(path: Path, owner: Mapping[str, Any]) -> None:
    """Takes the lock file from a process that is known to be gone: a file server may keep its lock for ever."""
    with suppress(OSError, ValueError, TypeError):
        held_by = json_value(path.read_bytes())
        if all(held_by[key] == owner.get(key) for key in this_process()):
            path.unlink()


def _locked(path: Path, name: str) -> int:
    """A descriptor of the file at `path`, locked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = try_lock(file) is not False
            with suppress(FileNotFoundError):
                if free and os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except OSError:
            os.close(file)
            raise
        os.close(file)
        if not free:
            raise BusyError(
                f"'{name}' is being trained by another run{_owner(path)}. Wait for it, stop it, or choose another name."
            )
        # else its owner has just removed it


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
        owner = json_value(path.read_bytes())
        return f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # not written yet, or removed
        return ""
