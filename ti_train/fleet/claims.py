"""Claims: who trains which embedding, among workers on any machine that share a folder.

A claim is a numbered file that is created exclusively: NAME.claim-1, then NAME.claim-2 ... The highest number counts.
A worker takes an embedding by creating the next number if the last claim is free: released, or its owner gone. Two
workers that both find it free create the same file, and one of them fails. So no server is needed, and clocks may
differ.

An owner on this machine is gone when the operating system has let go of its lock; one on another machine when its
heartbeat has not changed for a while, by the clock of whoever watches.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from ..text import json_value
from ..training.run_lock import this_process, try_lock

EXPIRES = 120.0  # seconds without a heartbeat; a network file system may show it a minute late
BEATS = 6  # heartbeats in that time
OLD = 5  # times that: by the file's time, on clocks that may differ by minutes
State = Literal["free", "held", "lost"]


class Claim:
    """A claim that this process holds. lost_owner: of the claim before it, if that owner is gone."""

    def __init__(self, path: Path, number: int, lost_owner: Mapping[str, Any] | None) -> None:
        """Creates the file. Raises FileExistsError if another worker was faster, and OSError."""
        self.path, self.number, self.lost_owner = path, number, lost_owner
        self._file = os.open(_numbered(path, number), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._beats, self._writing = 0, threading.Lock()
        try:
            try_lock(self._file)
            self.beat()
        except OSError:  # a full disk: an empty claim would keep the embedding from everyone
            os.close(self._file)
            _numbered(path, number).unlink(missing_ok=True)
            raise

    def beat(self, released: bool = False) -> None:
        """Shows others that the owner lives. Raises OSError."""
        with self._writing:
            self._beats += 1
            owner = this_process() | {"beats": self._beats, "released": released}
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, json.dumps(owner).ljust(200).encode())
            os.fsync(self._file)  # a network file system would keep it from others for a while

    def lost(self) -> bool:
        """Whether another worker has taken the embedding over, since this one gave no sign of life."""
        return _numbered(self.path, self.number + 1).exists()

    @contextmanager
    def held(self, expires: float = EXPIRES) -> Iterator[None]:
        """Beats within the context, and releases the claim after it."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(expires / BEATS):
                with suppress(OSError):  # a full disk: the next beat may succeed
                    self.beat()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(OSError):
                self.beat(released=True)
            os.close(self._file)


class Claims:
    """The claims in a folder, as one worker sees them."""

    def __init__(self, folder: Path, expires: float = EXPIRES) -> None:
        self.folder, self.expires = folder, expires
        self._seen: dict[Path, tuple[dict[str, Any], float]] = {}  # claim -> what it said, and since when

    def take(self, name: str) -> Claim | None:
        """A claim of the embedding, or None while another worker has it. Raises OSError."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        number, state, owner = self._last(path)
        if state == "held":
            return None
        with suppress(FileExistsError):
            return Claim(path, number + 1, owner if state == "lost" else None)
        return None

    def is_taken(self, name: str) -> bool:
        """Whether a worker has the embedding; for a lost one on another machine it takes minutes to know."""
        path = self._path(name)
        number, state, _ = self._last(path)
        return state == "held" and time.time() - _numbered(path, number).stat().st_mtime < OLD * self.expires

    def exist(self, name: str) -> bool:
        """Whether the embedding was ever claimed."""
        return _numbered(self._path(name), 1).exists()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.claim"

    def _last(self, path: Path) -> tuple[int, State, dict[str, Any]]:
        """The highest number of a claim, 0 if there is none, its state and its owner."""
        number = 0
        while _numbered(path, number + 1).exists():
            number += 1
        if not number:
            return 0, "free", {}
        claim = _numbered(path, number)
        owner = _owner(claim)
        if owner.get("released"):
            return number, "free", owner
        return number, "lost" if self._gone(claim, owner) else "held", owner

    def _gone(self, claim: Path, owner: dict[str, Any]) -> bool:
        """Whether the owner of a claim that was not released has ended."""
        here = this_process()
        is_here = all(owner.get(key) == here[key] for key in ("host", "machine"))
        if is_here and (unlocked := _is_unlocked(claim)) is not None:
            return unlocked
        seen, since = self._seen.get(claim, (None, 0.0))
        now = monotonic()
        if seen != owner:
            self._seen[claim] = owner, now
            return False
        return now - since > self.expires


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-{number}")


def _owner(claim: Path) -> dict[str, Any]:
    """What a claim says of its owner; {} while it is being written."""
    try:
        owner = json_value(claim.read_bytes())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_unlocked(claim: Path) -> bool | None:
    """Whether no process has the file locked; None if the file system has no locks, or nothing may be written."""
    try:
        file = os.open(claim, os.O_RDWR)
    except OSError:
        return None
    try:
        return try_lock(file)
    finally:
        os.close(file)
