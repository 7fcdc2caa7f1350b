"""A training of very many steps, whose memory, threads and files are looked at while it runs. Linux."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .runs import NAME

LOOKS = 20  # in the course of a run
GROWTH = 64  # MiB that the process may grow by from the first look to the last: each step's numbers stay in memory
IN_USE = 1  # file or connection that happens to be open at a look
OPTIONS = (
    "--preset Paper --resolution 32 --preview-every 5000 --preview-steps 10 --copy-every 10000 --device cpu "
    "--dtype float32"
)


@dataclass(frozen=True)
class Look:
    """What a training has of its machine. memory: resident, MiB. folder, log, state: bytes."""

    step: int
    memory: int
    threads: int
    open_files: int
    files: int
    folder: int
    log: int
    state: int

    @classmethod
    def at(cls, step: int, process: int, folder: Path) -> Look:
        memory, threads = memory_and_threads(process)
        sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        log, state = (sizes.get(folder / f"{NAME}.{kind}", 0) for kind in ("csv", "resume"))
        opened = len(list(Path(f"/proc/{process}/fd").iterdir()))
        return cls(step, memory, threads, opened, len(sizes), sum(sizes.values()), log, state)


def memory_and_threads(process: int) -> tuple[int, int]:
    """What is resident, in MiB, and the number of threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) // 1024, int(status["Threads"])


def looks(model: Path, images: Path, init: str, folder: Path, steps: int) -> Iterator[Look]:
    """Trains, and looks at the process at every twentieth of its steps. Raises SystemExit if the training fails."""
    given = ["--model", model, "--images", images, "--init", init, "--name", NAME, "--out", folder, "--steps", steps]
    command = [sys.executable, "-m", "ti_train", "train", *map(str, given), *OPTIONS.split()]
    folder.mkdir(parents=True)
    with (folder.with_name("said")).open("w") as said:
        training = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=said, stderr=subprocess.STDOUT)
        due = every = max(1, steps // LOOKS)
        while training.poll() is None:
            step = last_step(folder / f"{NAME}.csv")
            if step >= due and step < steps:
                yield Look.at(step, training.pid, folder)
                due = (step // every + 1) * every
            time.sleep(0.2)
    if training.returncode:
        raise SystemExit(f"The training failed:\n{Path(said.name).read_text()[-2000:]}")


def last_step(log: Path) -> int:
    """Of a step log; 0 if it has none yet."""
    if not log.is_file():
        return 0
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 1000))
        lines = file.read().split(b"\n")[1:-1]
    return int(lines[-1].split(b",")[0]) if lines else 0


def grown(first: Look, last: Look) -> list[str]:
    """What is wrong: what has grown that should not."""
    wrong = []
    if last.memory > first.memory + GROWTH:
        wrong.append(f"memory grew from {first.memory} to {last.memory} MiB")
    if last.open_files > first.open_files + IN_USE:
        wrong.append(f"{last.open_files - first.open_files} more open files")
    if last.threads > first.threads:
        wrong.append(f"{last.threads - first.threads} more threads")
    return wrong
