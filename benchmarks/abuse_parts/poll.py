"""Clients of ComfyUI's page that ask for its contents every second while a training runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from .long import last_step, memory_and_threads
from .many import Abused
from .polling import Clients, Part, alternated, answer

NAME, STEPS = "polled", 1_000_000  # it is interrupted
ROUTES = ("runs", "records", "embeddings", "pictures?folder=images", "thumbnail?file=images/0.png")


def ask_every_second(connection: HTTPConnection, number: int) -> float:
    answer(connection, f"/ti_train/{ROUTES[number % len(ROUTES)]}", {})
    return 1.0


def ask_at_once(connection: HTTPConnection, number: int) -> float:
    """As the page does: such clients do not wait for their turns, and each gets an answer of its own."""
    answer(connection, f"/ti_train/{ROUTES[number % len(ROUTES)]}", {"Cache-Control": "no-cache"})
    return 0.0


def polled(abused: Abused, images: Path, number: int, seconds: float) -> tuple[Part, Part]:
    with training(abused, images) as log:
        clients, process = Clients(abused.server.url, ask_every_second), abused.server.process.pid
        return alternated(clients, number, seconds, process, lambda: last_step(log))


def memory_after(abused: Abused, images: Path, number: int, requests: int) -> Iterator[tuple[int, int]]:
    """Requests so far, and MiB of the server, while so many clients ask without a pause during a training."""
    clients = Clients(abused.server.url, ask_at_once)
    with training(abused, images), clients.asking(number):
        for due in range(0, requests + 1, requests // 8):
            while clients.answered < due:
                time.sleep(0.2)
            memory, _ = memory_and_threads(abused.server.process.pid)
            yield clients.answered, memory


@contextmanager
def training(abused: Abused, images: Path) -> Iterator[Path]:
    """Runs within the context; its step log."""
    server, log = abused.server, abused.embeddings / f"{NAME}.csv"
    prompt = server.queue(abused.training(NAME, images, STEPS))
    while last_step(log) < 20 and prompt not in server.get("/history"):
        time.sleep(0.5)
    try:
        yield log
    finally:
        server.interrupt()
        server.wait(prompt)
