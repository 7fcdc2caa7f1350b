"""The curve of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..events import Step
from .colours import FAINT, GRID, INK, MARK, PAPER
from .text import font, write


def loss_plot(steps: Sequence[Step], title: str, width: int = 900, height: int = 420) -> Image.Image:
    """The noise-free loss over the steps, the noisy one faint behind it, the best measure marked."""
    noisy = smoothed([(s.step, s.loss) for s in steps if s.loss is not None and math.isfinite(s.loss)])
    measured = [(s.step, s.evaluation) for s in steps if s.evaluation is not None and math.isfinite(s.evaluation)]
    values = [value for _, value in noisy + measured] or [0.0, 1.0]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    last = max([step for step, _ in noisy + measured] or [1])
    left, top, right, bottom = 78, 44, width - 20, height - 48

    def point(step: float, value: float) -> tuple[float, float]:
        return left + (right - left) * step / max(1, last), bottom - (bottom - top) * (value - low) / (high - low)

    plot = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(plot)
    write(pen, (left, 12), title, font(17))
    for i in range(6):
        value, step = low + (high - low) * i / 5, round(last * i / 5)
        y, x = point(0, value)[1], point(step, low)[0]
        pen.line([(left, y), (right, y)], GRID)
        write(pen, (left - 8, y), f"{value:.4f}", font(13), anchor="rm")
        write(pen, (x, bottom + 6), str(step), font(13), anchor="ma")
    write(pen, ((left + right) / 2, height - 22), "step", font(13), anchor="ma")
    if len(noisy) > 1:
        pen.line([point(*p) for p in noisy], FAINT, 1)
    if len(measured) > 1:
        pen.line([point(*p) for p in measured], INK, 3, joint="curve")
    if measured:
        x, y = point(*min(measured, key=lambda p: p[1]))
        pen.ellipse([x - 5, y - 5, x + 5, y + 5], outline=MARK, width=2)
    write(pen, (right, 14), "dark: noise-free loss   faint: loss of the steps, smoothed", font(13), "#555555", "ra")
    return plot


def smoothed(points: list[tuple[int, float]], weight: float = 0.9) -> list[tuple[int, float]]:
    """An exponential mean; without it the noise would hide the curve."""
    mean, result = None, []
    for step, value in points:
        mean = value if mean is None else weight * mean + (1 - weight) * value
        result.append((step, mean))
    return result
