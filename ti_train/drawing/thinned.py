"""A sequence of limited length, for curves and previews of runs of any length."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import count
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class Thinned(Generic[Kept]):
    """At most `most` items (an even number), evenly spaced over all that were added, and the latest."""

    def __init__(self, most: int) -> None:
        self.most, self.stride, self.seen = most, 1, 0
        self.kept: list[Kept] = []
        self.latest: list[Kept] = []
        self.settled = 0  # items at the start that changes() has already returned

    def add(self, item: Kept) -> None:
        due = self.seen % self.stride == 0
        self.seen += 1
        self.kept += [item] if due else []
        self.latest = [] if due else [item]
        if len(self.kept) > self.most:
            del self.kept[1::2]
            self.stride *= 2
            self.settled = 0

    def changes(self) -> tuple[int, list[Kept]]:
        """The index of the first item that changed since the last call, and the items from there on."""
        start, self.settled = self.settled, len(self.kept)
        return start, list(self)[start:]

    def __iter__(self) -> Iterator[Kept]:
        return iter(self.kept + self.latest)


class ThinnedByKey(Generic[Kept]):
    """At most `most` items (an even number) of each key, evenly spaced, in the order in which they were added."""

    def __init__(self, most: int) -> None:
        self.most, self.numbers = most, count()
        self.of: dict[Hashable, Thinned[tuple[int, Kept]]] = {}

    def add(self, key: Hashable, item: Kept) -> None:
        self.of.setdefault(key, Thinned(self.most)).add((next(self.numbers), item))

    @property
    def seen(self) -> int:
        return sum(of_key.seen for of_key in self.of.values())

    def __iter__(self) -> Iterator[Kept]:
        numbered = sorted((pair for of_key in self.of.values() for pair in of_key), key=lambda pair: pair[0])
        return (item for _, item in numbered)
