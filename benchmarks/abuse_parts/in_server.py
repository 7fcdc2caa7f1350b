"""A training that is killed with the server that it runs in."""

from __future__ import annotations

import shutil
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path

from benchmarks.processor_time import cpu_seconds

from .runs import NAME, Ended


class InServer(ABC):
    """folder: of the server's embeddings."""

    folder: Path
    earlier: bytes | None = None
    _used = False

    def begun(self) -> None:
        """In a new server: a run takes as long there as after a kill."""
        if self._used:
            self.kill()
        self._used = True
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def clock(self) -> float:
        return cpu_seconds(self.process())

    def run(self, seconds: float | None = None) -> Ended:
        """See Killable: the server is killed, with all that it does."""
        deadline = self.clock() + (float("inf") if seconds is None else seconds)
        job = self.begin((self.folder / f"{NAME}.resume").is_file())
        while not self.has_ended(job):
            if self.clock() >= deadline:
                self.kill()
                return Ended(-signal.SIGKILL, "")
            time.sleep(0.02)
        said = self.error(job) or ", ".join(f"left behind: {path}" for path in self.unfinished())
        return Ended(int(bool(said)), said)

    @abstractmethod
    def begin(self, resumes: bool) -> str:
        """Asks for the training; the server's name for it."""

    @abstractmethod
    def has_ended(self, job: str) -> bool: ...

    @abstractmethod
    def error(self, job: str) -> str:
        """Why it failed; "" if it did not."""

    @abstractmethod
    def unfinished(self) -> list[Path]:
        """Files outside of the folder that a complete run should have removed."""

    @abstractmethod
    def process(self) -> int:
        """The server's number."""

    @abstractmethod
    def kill(self) -> None:
        """Also starts the server again."""

    @abstractmethod
    def close(self) -> None:
        """Stops the server."""
