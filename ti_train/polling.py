"""When clients that poll during a training get their turns: all of them together cost it less than a percent."""

from __future__ import annotations

import threading
from time import monotonic

SHARE = 0.007  # of a processor, that all of them may cost
MOST = 15.0  # seconds until a turn


class Turns:
    """Gives each who asks the next free turn.

    earliest: seconds until the turn of one who asks alone; negative: unused turns of so many seconds are free.
    """

    def __init__(self, earliest: float) -> None:
        self._earliest, self._last, self._lock = earliest, float("-inf"), threading.Lock()

    def next(self, cost: float) -> float:
        """Seconds until the turn of one who asks now, whose answer costs so many seconds of a processor."""
        now = monotonic()
        with self._lock:
            self._last = min(max(now + self._earliest, self._last + cost / SHARE), now + MOST)
            return max(0.0, self._last - now)
