"""The speed of a run and the time that it has left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

WARM_UP = 2  # steps: in the first ones memory is allocated and kernels are chosen
RECENT = 100  # steps that are averaged: as a rule one with a preview is among them


class Pace:
    """Steps per second by the clock, so that previews and validation count too. The warm-up does not."""

    def __init__(self, total: int, clock: Callable[[], float] = monotonic) -> None:
        self.total, self._clock = total, clock
        self._seen = 0
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT + 1)  # a step and when it was complete

    def completed(self, step: int) -> None:
        self._recent.append((step, self._clock()))
        self._seen += 1
        if self._seen == WARM_UP + 2:  # from here on there is a step to measure without the warm-up
            for _ in range(WARM_UP):
                self._recent.popleft()

    @property
    def rate(self) -> float | None:
        """Steps per second; None until two steps are complete."""
        if len(self._recent) < 2:
            return None
        (first, began), (last, ended) = self._recent[0], self._recent[-1]
        return (last - first) / (ended - began) if ended > began else None

    @property
    def seconds_left(self) -> float | None:
        rate = self.rate
        return (self.total - self._recent[-1][0]) / rate if rate else None
