"""When those who follow a training ask again: however many they are, together they cost it less than a percent."""

from __future__ import annotations

import threading
from time import monotonic

SHARE = 0.007  # of a processor, that all of them may cost
STATUS, LOOK = 0.0018, 0.005  # seconds of a processor for an answer of the API, of the tab; see docs/reliability.md
MEASUREMENT = 0.000004  # and for each step in one of the API
LEAST, MOST = 1.0, 15.0  # seconds between two questions of one client


class Turns:
    """Gives each who asks the next free turn."""

    def __init__(self) -> None:
        self._last, self._lock = 0.0, threading.Lock()

    def next(self, cost: float) -> float:
        """Seconds until the turn of one who asks now, whose answer costs so many seconds of a processor."""
        now = monotonic()
        with self._lock:
            self._last = min(max(now + LEAST, self._last + cost / SHARE), now + MOST)
            return self._last - now


turns = Turns()
