"""The speed of a run, and an estimate of the time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

WARM_UP = 2  # steps; they are much slower because memory is allocated and kernels are selected
RECENT = 100  # steps in the average, usually including a preview


class Pace:
    """Steps per second of wall-clock time: previews and validation count, the first steps do not."""

    def __init__(self, total: int, clock: Callable[[], float] = monotonic) -> None:
        self.total, self._clock = total, clock
        self._seen = 0
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT + 1)  # step and completion time

    def completed(self, step: int) -> None:
        now = self._clock()
        self._seen += 1
        if self._seen > WARM_UP:  # the first of them ends the warm-up: the time after it is measured
            self._recent.append((step, now))

    @property
    def rate(self) -> float | None:
        """Steps per second; None before the first step after the warm-up is complete."""
        if len(self._recent) < 2:
            return None
        (first, began), (last, ended) = self._recent[0], self._recent[-1]
        return (last - first) / (ended - began) if ended > began else None

    @property
    def seconds_left(self) -> float | None:
        rate = self.rate
        return (self.total - self._recent[-1][0]) / rate if rate else None
