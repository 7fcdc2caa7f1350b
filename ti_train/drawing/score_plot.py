"""The paper's plot of image similarity against editability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .axes import Axes, evenly, with_margin
from .colours import INK, MARK, PAPER
from .text import font, legible, write


@dataclass(frozen=True)
class Point:
    """A point of the plot; references are hollow."""

    label: str
    across: float
    up: float
    hollow: bool


Box = tuple[float, float, float, float]
PAPERS_AXES = "text similarity (editability)", "image similarity (fidelity)"


def score_plot(
    points: Sequence[Point], title: str, axes: tuple[str, str] = PAPERS_AXES, width: int = 900, height: int = 620
) -> Image.Image:
    """axes: what is across and up. References are hollow (Gal et al. 2022, figure 10)."""
    left, _, right, _ = box = (78, 50, width - 24, height - 56)
    across, up = (with_margin(values, 0.15, 0.01) for values in ([p.across for p in points], [p.up for p in points]))
    frame = Axes(across, up, box)
    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    write(pen, (left, 14), title, font(17))
    marks = [{value: f"{value:.3f}" for value in evenly(values)} for values in (across, up)]
    frame.draw(pen, marks[0], marks[1], columns=True)
    write(pen, ((left + right) / 2, height - 26), axes[0], font(13), anchor="ma")
    write(pen, (right, 18), f"up: {axes[1]}", font(13), "#555555", "ra")
    taken: list[Box] = []
    for point in points:
        x, y = frame.place(point.across, point.up)
        fill, outline = (PAPER, MARK) if point.hollow else (INK, INK)
        pen.ellipse([x - 6, y - 6, x + 6, y + 6], fill, outline, 2)
        taken.append((x - 7, y - 7, x + 7, y + 7))
    for point, mark in zip(points, tuple(taken), strict=True):
        name = legible(point.label, font(14))
        label = free_place(mark, font(14).getlength(name), (left, right), taken)
        taken.append(label)
        write(pen, (label[0], (label[1] + label[3]) / 2), name, font(14), anchor="lm")
    return picture


def free_place(mark: Box, length: float, limits: tuple[float, float], taken: Sequence[Box]) -> Box:
    """The box of a label: beside its mark, shifted up or down as little as needed to avoid overlaps."""
    right_of, left_of = mark[2] + 4, mark[0] - 4 - length
    start = right_of if right_of + length <= limits[1] else max(limits[0], left_of)
    middle = (mark[1] + mark[3]) / 2
    for shift in sorted(range(-240, 241, 4), key=abs):
        box = (start, middle + shift - 9, start + length, middle + shift + 9)
        if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            return box
    return (start, middle - 9, start + length, middle + 9)
