"""How far a fleet is: read from its folder, so that it is the same for whoever asks, on any machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

from .claims import Claims
from .records import Ledger, Record
from .worker import Rules

SHARE = 0.02  # of the time that may be spent on looking: a list of ten thousand has as many files


class Tally:
    """The records of a fleet's embeddings; settled ones are read once."""

    def __init__(self, names: Sequence[str], ledger: Ledger, rules: Rules) -> None:
        self.names, self._ledger, self._rules = names, ledger, rules
        self._claims, self._settled = Claims(ledger.folder), dict[str, Record]()
        self.records = self._read()
        self._began = self._looked = monotonic()
        self._pause, self._at_start = 0.0, self.settled

    @property
    def settled(self) -> int:
        return len(self._settled)

    @property
    def is_complete(self) -> bool:
        return self.settled == len(self.names)

    def look(self, at_once: bool = False) -> None:
        """Reads what has changed, unless that was done a moment ago."""
        began = monotonic()
        if at_once or began - self._looked > self._pause:
            self.records = self._read()
            self._looked = monotonic()
            self._pause = (self._looked - began) / SHARE

    def line(self) -> str:
        """The progress in one line."""
        counts = Counter(record.status for record in self.records)
        parts = [f"{counts['done']} of {len(self.names)} done"]
        parts += [f"{counts[status]} {status}" for status in ("running", "waiting", "failed") if counts[status]]
        return ", ".join(parts) + self._pace()

    def _pace(self) -> str:
        new, seconds = self.settled - self._at_start, monotonic() - self._began
        if not new or self.is_complete:
            return ""
        left = (len(self.names) - self.settled) * seconds / new
        return f"; {3600 * new / seconds:.0f} per hour, {_duration(left)} left"

    def _read(self) -> list[Record]:
        """All of them, in the list's order, with the status running where a worker has the embedding."""
        return [self._settled.get(name) or self._record(name) for name in self.names]

    def _record(self, name: str) -> Record:
        record = self._ledger.read(name) or Record(name)
        if self._rules.settles(record):
            self._settled[name] = record
            return record
        return replace(record, status="running" if self._claims.is_taken(name) else "waiting")


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
