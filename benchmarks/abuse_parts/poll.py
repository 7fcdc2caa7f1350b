"""Many clients that ask for the page's contents every second while a training runs: what they cost it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path

from ..processor_time import thread_seconds
from .long import last_step
from .many import Abused

NAME, STEPS = "polled", 1_000_000  # it is interrupted
ROUTES = ("runs", "records", "embeddings", "pictures?folder=images", "thumbnail?file=images/0.png")
ALTERNATIONS = 4  # with clients and without


@dataclass
class Part:
    """A part of a training. trained, served: seconds of a processor, of its thread and of all other threads."""

    seconds: float = 0.0
    steps: int = 0
    trained: float = 0.0
    served: float = 0.0
    requests: int = 0


class Clients:
    """Threads of this process, each of which asks for one route after another, one a second, by one connection."""

    def __init__(self, url: str) -> None:
        self.address, self.answered, self._over = url.partition("//")[2], 0, threading.Event()

    @contextmanager
    def asking(self, number: int) -> Iterator[None]:
        self._over.clear()
        threads = [threading.Thread(target=self._ask, args=(first,)) for first in range(number)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self, first: int) -> None:
        routes = cycle(ROUTES[first % len(ROUTES) :] + ROUTES[: first % len(ROUTES)])
        with closing(HTTPConnection(self.address, timeout=300)) as connection:
            while not self._over.wait(1.0):
                connection.request("GET", f"/ti_train/{next(routes)}")
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.reason
                self.answered += 1


def polled(abused: Abused, images: Path, number: int, seconds: float) -> tuple[Part, Part]:
    """A training's parts without clients and with so many, which alternate. seconds: of each."""
    server, log = abused.server, abused.embeddings / f"{NAME}.csv"
    prompt = server.queue(abused.training(NAME, images, STEPS))
    while last_step(log) < 20 and prompt not in server.get("/history"):
        time.sleep(0.5)
    alone, asked, clients = Part(), Part(), Clients(server.url)
    for part, there in [(alone, 0), (asked, number)] * ALTERNATIONS:
        with clients.asking(there):
            began, before, answered = time.monotonic(), thread_seconds(server.process.pid), clients.answered
            step = last_step(log)
            time.sleep(seconds)
            part.seconds += time.monotonic() - began
            part.requests += clients.answered - answered
            part.steps += last_step(log) - step
            used = [after - before.get(thread, 0) for thread, after in thread_seconds(server.process.pid).items()]
            part.trained += max(used)
            part.served += sum(used) - max(used)
    server.interrupt()
    server.wait(prompt)
    return alone, asked
