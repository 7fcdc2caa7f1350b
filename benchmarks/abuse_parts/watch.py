"""What reading a file must not do: write, remove, start a program, call out. Heard from Python's own audit events."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
    *("os.putenv", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.startfile", "subprocess.Popen"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "ctypes.dlopen", "code.__new__"),
}
_heard: list[list[str]] = []  # of each `watching` that is under way


@contextmanager
def watching() -> Iterator[list[str]]:
    """Fills the list with what is done meanwhile that only reading does not."""
    _listen()
    done: list[str] = []
    _heard.append(done)
    try:
        yield done
    finally:
        _heard.remove(done)


@cache
def _listen() -> None:
    """Once: a hook cannot be removed."""
    sys.addaudithook(_event)


def _event(event: str, given: tuple[Any, ...]) -> None:
    if _heard and (event in CHANGES or (event == "open" and isinstance(given[2], int) and given[2] & WRITES)):
        _heard[-1].append(f"{event} {given[0]!r}"[:200])
