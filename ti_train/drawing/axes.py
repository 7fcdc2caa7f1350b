"""Axes of a chart: the mapping from values to pixels, the grid and the tick labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import ImageDraw

from .colours import GRID
from .text import font, write

Range = tuple[float, float]


@dataclass(frozen=True)
class Axes:
    """Two ranges of values, and the box that they fill: left, top, right, bottom in pixels."""

    across: Range
    up: Range
    box: tuple[float, float, float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The position of a point in pixels."""
        left, top, right, bottom = self.box
        return (
            left + (right - left) * (x - self.across[0]) / (self.across[1] - self.across[0]),
            bottom - (bottom - top) * (y - self.up[0]) / (self.up[1] - self.up[0]),
        )

    def draw(
        self, pen: ImageDraw.ImageDraw, across: Mapping[float, str], up: Mapping[float, str], columns: bool = False
    ) -> None:
        """Draws tick labels (value -> text), with grid lines for `up`, and for `across` if `columns`."""
        left, top, right, bottom = self.box
        for value, text in up.items():
            _, y = self.place(0, value)
            pen.line([(left, y), (right, y)], GRID)
            write(pen, (left - 8, y), text, font(13), anchor="rm")
        for value, text in across.items():
            x, _ = self.place(value, 0)
            if columns:
                pen.line([(x, top), (x, bottom)], GRID)
            write(pen, (x, bottom + 6), text, font(13), anchor="ma")


def evenly(values: Range, count: int = 6) -> list[float]:
    """`count` evenly spaced values, including both ends."""
    low, high = values
    return [low + (high - low) * i / (count - 1) for i in range(count)]


def round_numbers(values: Range, count: int = 6) -> list[float]:
    """At most about `count` multiples of 1, 2 or 5 times a power of ten within the range."""
    low, high = values
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= (high - low) / count)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def with_margin(values: Sequence[float], part: float, least: float) -> Range:
    """The range of the values with a margin: `part` of the range, but at least `least` > 0."""
    low, high = min(values), max(values)
    margin = max(part * (high - low), least)
    return low - margin, high + margin
