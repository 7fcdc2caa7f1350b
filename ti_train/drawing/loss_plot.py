"""The loss plot of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from ..events import Step
from .axes import Axes, Range, evenly, round_numbers, with_margin
from .colours import BAND, FAINT, INK, MARK, PAPER
from .loss_curves import LossCurves, Point
from .text import font, write

LEGEND = (
    "thick: validation loss (band: its error; ring: the step that is kept)   thin: training loss, on a scale of its own"
)


def loss_plot(
    steps: Sequence[Step], title: str, kept: Point | None = None, width: int = 900, height: int = 420
) -> Image.Image:
    """The validation loss over the steps with a ring around the kept step, and the training loss faint behind it.

    The band is two standard errors of the loss's change since step 0 wide on either side.
    """
    curves = LossCurves(steps)
    axes = axes_of(curves, (78, 44, width - 20, height - 48))
    left, _, right, _ = axes.box
    plot = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(plot)
    write(pen, (left, 12), title, font(17))
    axes.draw(pen, step_marks(axes), loss_marks(axes))
    write(pen, ((left + right) / 2, height - 22), "step", font(13), anchor="ma")
    if len(outline := outline_of(curves, axes)) > 2:
        pen.polygon(outline, BAND)
    for curve, colour, thickness in ((beside(curves, axes), FAINT, 1), (curves.validation_losses, INK, 3)):
        line = [axes.place(*point) for point in curve]
        if len(line) > 1:
            pen.line(line, colour, thickness, joint="curve")
    if kept:
        x, y = axes.place(*kept)
        pen.ellipse([x - 5, y - 5, x + 5, y + 5], outline=MARK, width=2)
    write(pen, (right, 14), LEGEND, font(13), "#555555", "ra")
    return plot


def axes_of(curves: LossCurves, box: tuple[float, float, float, float]) -> Axes:
    """Steps from 0 across, validation losses up; without any the training losses. box: left, top, right, bottom."""
    last = max([step for step, _ in (*curves.loss, *curves.validation_losses)] or [0])
    band = [(step, value) for step, *values in curves.band for value in values]
    return Axes((0, max(1, last)), _range(band or curves.loss), box)


def outline_of(curves: LossCurves, axes: Axes) -> list[tuple[float, float]]:
    """The outline of the validation loss's band, in pixels."""
    band = list(curves.band)
    above = [axes.place(step, high) for step, _, high in band]
    return above + [axes.place(step, low) for step, low, _ in reversed(band)]


def beside(curves: LossCurves, axes: Axes) -> list[Point]:
    """The training losses moved onto the axes: the two losses are of different noise levels, and not comparable."""
    low, high = _range(curves.loss)
    bottom, top = axes.up
    return [(step, bottom + (value - low) / (high - low) * (top - bottom)) for step, value in curves.loss]


def _range(points: Iterable[Point]) -> Range:
    values = [value for _, value in points] or [0.0, 1.0]
    return with_margin(values, 0.05, 0.01 * max(map(abs, values)) or 1.0)


def step_marks(axes: Axes) -> dict[float, str]:
    """The tick labels of the steps: round numbers."""
    return {step: f"{step:g}" for step in round_numbers(axes.across) if step.is_integer()}


def loss_marks(axes: Axes) -> dict[float, str]:
    """The tick labels of the losses."""
    return {value: f"{value:#.4g}" for value in evenly(axes.up)}
