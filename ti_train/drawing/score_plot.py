"""The paper's plot of likeness against editability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .colours import GRID, INK, MARK, PAPER
from .text import font, legible, write


@dataclass(frozen=True)
class Point:
    """A mark of the plot; hollow for a reference."""

    label: str
    across: float
    up: float
    hollow: bool


Box = tuple[float, float, float, float]


def score_plot(points: Sequence[Point], title: str, width: int = 900, height: int = 620) -> Image.Image:
    """Text similarity to the right, image similarity upwards; references hollow (Gal et al. 2022, figure 10)."""
    left, top, right, bottom = 78, 50, width - 24, height - 56
    low_x, high_x = with_margin([p.across for p in points])
    low_y, high_y = with_margin([p.up for p in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * (x - low_x) / (high_x - low_x),
            bottom - (bottom - top) * (y - low_y) / (high_y - low_y),
        )

    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    write(pen, (left, 14), title, font(17))
    for i in range(6):
        x, y = low_x + (high_x - low_x) * i / 5, low_y + (high_y - low_y) * i / 5
        across, up = place(x, y)
        pen.line([(left, up), (right, up)], GRID)
        pen.line([(across, top), (across, bottom)], GRID)
        write(pen, (left - 8, up), f"{y:.3f}", font(13), anchor="rm")
        write(pen, (across, bottom + 6), f"{x:.3f}", font(13), anchor="ma")
    write(pen, ((left + right) / 2, height - 26), "text similarity (editability)", font(13), anchor="ma")
    write(pen, (right, 18), "upwards: image similarity (likeness)", font(13), "#555555", "ra")
    taken: list[Box] = []
    for point in points:
        x, y = place(point.across, point.up)
        fill, outline = (PAPER, MARK) if point.hollow else (INK, INK)
        pen.ellipse([x - 6, y - 6, x + 6, y + 6], fill, outline, 2)
        taken.append((x - 7, y - 7, x + 7, y + 7))
    for point, mark in zip(points, tuple(taken), strict=True):
        name = legible(point.label, font(14))
        box = free_place(mark, font(14).getlength(name), (left, right), taken)
        taken.append(box)
        write(pen, (box[0], (box[1] + box[3]) / 2), name, font(14), anchor="lm")
    return picture


def with_margin(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds all values with room at its ends; never empty."""
    low, high = min(values), max(values)
    margin = max(0.15 * (high - low), 0.01)
    return low - margin, high + margin


def free_place(mark: Box, length: float, limits: tuple[float, float], taken: Sequence[Box]) -> Box:
    """Where a label of a mark stands: beside it, or as little higher or lower as keeps it off the others."""
    right_of, left_of = mark[2] + 4, mark[0] - 4 - length
    start = right_of if right_of + length <= limits[1] else max(limits[0], left_of)
    middle = (mark[1] + mark[3]) / 2
    for shift in sorted(range(-240, 241, 4), key=abs):
        box = (start, middle + shift - 9, start + length, middle + shift + 9)
        if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            return box
    return (start, middle - 9, start + length, middle + 9)
