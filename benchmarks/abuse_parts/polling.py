"""Clients that ask a server again and again, and what they cost the training that runs in it. Linux."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count

from ..processor_time import thread_seconds

ALTERNATIONS = 4  # with clients and without
SETTLING = 6.0  # seconds until each client has been told when to ask again, and all spare turns are taken
IDLE = 4.0  # seconds; servers close a connection on which nobody has asked for five
Ask = Callable[[HTTPConnection, int], float]  # asks a client's nth question; returns seconds until its next one


@dataclass
class Part:
    """A part of a training. trained, served: seconds of a processor, of its thread and of all other threads."""

    seconds: float = 0.0
    steps: int = 0
    trained: float = 0.0
    served: float = 0.0
    requests: int = 0


class Clients:
    """Threads of this process, each with a connection of its own, which it keeps."""

    def __init__(self, url: str, ask: Ask) -> None:
        self.address, self.answered, self._ask, self._over = url.partition("//")[2], 0, ask, threading.Event()

    @contextmanager
    def asking(self, number: int) -> Iterator[None]:
        self._over.clear()
        threads = [threading.Thread(target=self._run, args=(first, number)) for first in range(number)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _run(self, first: int, of: int) -> None:
        wait = first / of  # they do not begin at once
        with closing(HTTPConnection(self.address, timeout=300)) as connection:
            for number in count(first):
                if self._over.wait(wait):
                    return
                if wait > IDLE:
                    connection.close()  # it opens again by itself
                wait = self._ask(connection, number)
                self.answered += 1


def answer(connection: HTTPConnection, path: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    connection.request("GET" if body is None else "POST", path, body, dict(headers))
    came = connection.getresponse()
    said = came.read()
    assert came.status == 200, f"{path}: {came.status} {said[:500]!r}"
    return said


def alternated(
    clients: Clients, number: int, seconds: float, process: int, steps: Callable[[], int]
) -> tuple[Part, Part]:
    """A training's parts without clients and with so many, which alternate. seconds: of each."""
    alone, asked = Part(), Part()
    for part, there in [(alone, 0), (asked, number)] * ALTERNATIONS:
        with clients.asking(there):
            time.sleep(SETTLING)
            began, before, answered = time.monotonic(), thread_seconds(process), clients.answered
            step = steps()
            time.sleep(seconds)
            part.seconds += time.monotonic() - began
            part.requests += clients.answered - answered
            part.steps += steps() - step
            used = [after - before.get(thread, 0) for thread, after in thread_seconds(process).items()]
            part.trained += max(used)
            part.served += sum(used) - max(used)
    return alone, asked


def cost(alone: Part, asked: Part) -> float:
    """Seconds of a processor for each request, besides what the other threads use without clients."""
    return (asked.served - alone.served * asked.seconds / alone.seconds) / max(1, asked.requests)
