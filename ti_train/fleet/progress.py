"""How far a fleet is: read from its folder, so that it is the same for whoever asks, on any machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from .claims import Claims
from .records import Ledger, Record
from .worker import Rules

SHARE = 0.02  # of the time that may be spent on looking: a list of ten thousand has as many files


class Throttled:
    """Something that is done again only if it takes a small share of the time, and at most every `least` seconds."""

    def __init__(self, action: Callable[[], object], least: float = 0.0) -> None:
        self._action, self._least, self._next = action, least, 0.0

    def __call__(self, at_once: bool = False) -> None:
        began = time.monotonic()
        if at_once or began >= self._next:
            self._action()
            ended = time.monotonic()
            self._next = ended + max(self._least, (ended - began) / SHARE)


class Tally:
    """The records of a fleet's embeddings; settled ones are read once.

    own: the names that this machine trains, if that is a shard of the list. The counts are of these.
    """

    def __init__(
        self,
        names: Sequence[str],
        ledger: Ledger,
        rules: Rules,
        own: Sequence[str] | None = None,
        since: float | None = None,
    ) -> None:
        """since: when the fleet was started, as Unix time, by whoever did; None: now, by this process."""
        self.names, self._own = names, {*names} if own is None else {*own}
        self._ledger, self._rules, self._claims = ledger, rules, Claims(ledger.folder)
        self._settled: dict[str, Record] = {}
        self.look = Throttled(self._read)
        self.look()
        self._began, self._watches = since or time.time(), since is not None
        settled = self._own & {*self._settled}
        self._at_start = sum(ledger.time_of(name) < self._began for name in settled) if since else len(settled)

    @property
    def is_complete(self) -> bool:
        return self.settled == len(self._own)

    def line(self) -> str:
        """The progress in one line."""
        counts = self._counts
        parts = [f"{counts['done']} of {len(self._own)} done"]
        parts += [f"{counts[status]} {status}" for status in ("running", "waiting", "failed") if counts[status]]
        is_idle = self._watches and not counts["running"]
        return ", ".join(parts) + ("" if is_idle or self.is_complete else self._pace())

    def _pace(self) -> str:
        new, seconds = self.settled - self._at_start, time.time() - self._began
        if not new:
            return ""
        left = (len(self._own) - self.settled) * seconds / new
        return f"; {3600 * new / seconds:.0f} per hour, {_duration(left)} left"

    def _read(self) -> None:
        everyone = [self._settled.get(name) or self._record(name) for name in self.names]
        self.records = [record for record in everyone if record.name in self._own]
        self._counts = Counter(record.status for record in self.records)
        self.settled = sum(record.name in self._settled for record in self.records)
        # grows with each embedding that is settled, and with each attempt
        self.progress = self.settled + sum(record.attempts for record in self.records)
        # of the others' shards what is seen here, which is nothing without a shared folder
        self.table = [record for record in everyone if record.name in self._own or record.status != "waiting"]

    def _record(self, name: str) -> Record:
        """With the status running where a worker has the embedding."""
        record = self._ledger.read(name) or Record(name)
        if self._rules.settles(record):
            self._settled[name] = record
            return record
        return replace(record, status="running" if self._claims.is_taken(name) else "waiting")


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
