"""The local engine: one long-lived worker process per GPU, or per share of the CPU's cores."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnContext, SpawnProcess
from types import FrameType
from typing import Any, Protocol

import torch

from ..errors import UserError
from ..host import Host
from .job_list import Job
from .worker import Rules, work_together

CANNOT_OPEN, ENDED = 3, 4  # exit status of a worker whose model cannot be opened, or that a signal has ended
LOOKS_EVERY = 0.5  # seconds
PATIENCE = 120.0  # seconds that the workers get to end their steps after the fleet is stopped
MOST_LOSSES = 3  # lost workers per worker without any progress

OpenHost = Callable[[str], Host]  # from a device


class Flag:
    """Whether the fleet was stopped. Without a lock: a worker that is killed while it has one keeps it for ever."""

    def __init__(self, context: SpawnContext) -> None:
        self._shared = context.RawValue("b", 0)

    def set(self) -> None:
        self._shared.value = 1

    def is_set(self) -> bool:
        return bool(self._shared.value)


class Look(Protocol):
    """Shows the progress."""

    def __call__(self, at_once: bool = False) -> int:
        """Returns a number that grows with each embedding that is settled, and with each failed attempt."""


def when_told_to_end(handler: Callable[[int, FrameType | None], object]) -> None:
    """Handles the signals of `kill`, of job schedulers and of a terminal that is closed."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, handler)


def devices_of(device: str, workers: int) -> list[str]:
    """The device of each worker. workers: 0 = one per GPU, or one on a CPU."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device in ("auto", "cuda") else []
    count = workers or len(gpus) or 1
    return [gpus[i % len(gpus)] if gpus else device for i in range(count)]


def run_local(open_host: OpenHost, devices: Sequence[str], jobs: Sequence[Job], rules: Rules, look: Look) -> None:
    """Runs workers until every job is settled, and replaces those that die.

    look: called twice a second. A worker whose device cannot open the model leaves its share to the others. On
    KeyboardInterrupt all workers end after their current step, with their runs saved. Raises UserError if no worker can
    open the model, or if workers keep dying before they train.
    """
    context = multiprocessing.get_context("spawn")
    stop = Flag(context)
    threads = max(1, (os.cpu_count() or 1) // len(devices))

    def start(device: str) -> SpawnProcess:
        process = context.Process(target=_worker, args=(open_host, device, threads, jobs, rules, stop), daemon=True)
        process.start()
        return process

    running = {start(device): device for device in devices}
    refused, losses, last = 0, 0, look()
    try:
        while running:
            multiprocessing.connection.wait([process.sentinel for process in running], LOOKS_EVERY)
            ended = [process for process in running if process.exitcode is not None]
            now = look(at_once=bool(ended))
            losses, last = (losses if now == last else 0), now
            for process in ended:
                device = running.pop(process)
                if process.exitcode == CANNOT_OPEN:
                    refused += 1
                elif process.exitcode:
                    losses += 1
                    if losses > MOST_LOSSES * len(devices):
                        raise UserError(f"{losses} workers have died, and none has trained anything in between.")
                    running[start(device)] = device
        if refused == len(devices):
            raise UserError("No worker can open the model; the messages are above.")
    finally:
        stop.set()
        for process in running:
            process.join(PATIENCE)
            process.kill()
        look()


def _worker(open_host: OpenHost, device: str, threads: int, jobs: Sequence[Job], rules: Rules, stop: Flag) -> None:
    """The body of a worker process. It ends with its parent, and on a signal, each time after the current step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the parent too, which decides
    ended: list[int] = []
    when_told_to_end(lambda number, _frame: ended.append(number))
    parent: Any = multiprocessing.parent_process()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)

    def opened() -> Host:
        try:
            return open_host(device)
        except Exception as error:  # the user's, or a driver's
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            sys.stderr.write(f"ti_train: A worker cannot open the model (device {device}): {reason}\n")
            sys.exit(CANNOT_OPEN)

    try:
        work_together(opened, jobs, rules, lambda: bool(ended) or stop.is_set() or not parent.is_alive())
    except OSError as error:  # a claim or a record cannot be written
        sys.stderr.write(f"ti_train: {error}\n")
        sys.exit(1)
    if ended:
        sys.exit(ENDED)
