"""Runs a trainer's command and watches it from outside: the steps on its progress bar, CPU time and memory."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

from ..processor_time import cpu_seconds

TAIL = 2000  # characters of what a failed command has said
WINDOW = struct.pack("HHHH", 50, 200, 0, 0)  # rows and columns: in a window without any, bars are not drawn
EVERY = 0.2  # seconds between two looks at a GPU's memory


@dataclass
class Watched:
    """What was seen. A stamp is the end of a step: seconds since the command began, and CPU seconds until then."""

    stamps: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0  # bytes of the process
    gpu: int = 0  # bytes of the GPU more than before


class FailedError(Exception):
    """A command that ended with an error, or without having shown all its steps; with the last of what it said."""


def watch(command: Sequence[str], folder: Path, steps: int, environment: Mapping[str, str]) -> Watched:
    """Runs the command on a terminal of its own, on which every trainer draws a bar that counts to `steps`."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, WINDOW)
    seen, said = Watched(), ""
    with gpu_memory(seen):
        began = time.perf_counter()
        drawn_always = {"TQDM_MININTERVAL": "0"}
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment, **drawn_always}, stdin=its, stdout=its, stderr=its
        )
        os.close(its)
        for text in read(ours):
            said = (said + text)[-TAIL:]
            if (begins := said.rfind(f" 0/{steps} ")) >= 0:  # an earlier bar may count to as many
                said = said[begins + 3 :]
                seen.stamps.clear()
            for done in counted(said, steps):
                if done == len(seen.stamps) + 1:
                    seen.stamps.append((time.perf_counter() - began, cpu_seconds(process.pid)))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seen.seconds = time.perf_counter() - began
    os.close(ours)
    seen.cpu = usage.ru_utime + usage.ru_stime
    seen.peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if process.returncode or len(seen.stamps) < steps:
        raise FailedError(f"exit code {process.returncode} after {len(seen.stamps)} steps: {said}")
    return seen


def read(terminal: int) -> Iterator[str]:
    """What is written to a terminal until its other side is closed."""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # how Linux tells the end of a terminal
            return
        if not data:
            return
        yield data.decode(errors="replace")


def counted(text: str, steps: int) -> list[int]:
    """The numbers of steps that a bar which counts to `steps` has shown, in order."""
    return [int(done) for done in re.findall(rf"(?<![\d/])(\d+)/{steps}(?=[\s,\]])", text)]


@contextmanager
def gpu_memory(seen: Watched) -> Iterator[None]:
    """Notes the most memory of the first NVIDIA GPU; the caching allocator's and the context's belong to it."""
    if which("nvidia-smi") is None:
        yield
        return
    before, over = gpu_used(), threading.Event()

    def look() -> None:
        while not over.wait(EVERY):
            seen.gpu = max(seen.gpu, gpu_used() - before)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


def gpu_used() -> int:
    """Bytes."""
    question = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(question, capture_output=True, text=True, check=True).stdout) * 2**20
