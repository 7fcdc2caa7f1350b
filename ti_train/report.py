"""What a run leaves for people: the CSV of its steps, and a drawing of its loss."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from .lettering import font, wrapped, write
from .loop import Step

COLUMNS = ("step", "loss", "noise_free_loss", "learning_rate", "norm", "cosine_to_init", "seconds")
INK, FAINT, GRID, PAPER, MARK = "#1b4f8f", "#b9c9dd", "#e6e6e6", "white", "#c03028"


class StepLog:
    """A CSV file with one line a step, written as the steps come."""

    def __init__(self, path: Path, after: int = 0) -> None:
        """Keeps what an interrupted run wrote up to step `after`; begins anew where that is 0."""
        self.steps = [step for step in read_steps(path) if step.step <= after] if after else []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        for step in self.steps:
            self._write(step)

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self._write(step)

    def _write(self, step: Step) -> None:
        numbers = (step.loss, step.evaluation, step.learning_rate, step.norm, step.cosine, step.seconds)
        self._writer.writerow([step.step, *("" if n is None else f"{n:.6g}" for n in numbers)])
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_steps(path: Path) -> list[Step]:
    """The steps of a CSV written by StepLog; [] where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    number = [{key: float(value) if value else None for key, value in row.items()} for row in rows]
    return [
        Step(
            int(n["step"] or 0),
            n["loss"],
            n["noise_free_loss"],
            n["learning_rate"] or 0.0,
            n["norm"] or 0.0,
            n["cosine_to_init"] or 0.0,
            n["seconds"] or 0.0,
        )
        for n in number
    ]


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


@dataclass(frozen=True)
class Row:
    """A row of a contact sheet: what it shows, its pictures, and what stands under each (or nothing)."""

    label: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str] = ()


def contact_sheet(rows: Sequence[Row], title: str, cell: int = 128, margin: int = 10) -> Image.Image:
    """Rows of pictures, each scaled to cell x cell pixels, with their labels on the left."""
    label_width, caption_height = 190, 18
    heights = [cell + margin + (caption_height if row.captions else 0) for row in rows]
    width = label_width + max(len(row.pictures) for row in rows) * (cell + margin) + margin
    sheet = Image.new("RGB", (width, 46 + sum(heights) + margin), PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, (margin, 12), title, font(20))
    top = 46
    for row, height in zip(rows, heights, strict=True):
        lines = wrapped(row.label, label_width - 2 * margin, font(15))
        pen.multiline_text((margin, top + cell / 2), "\n".join(lines), "black", font(15), anchor="lm", spacing=5)
        for i, picture in enumerate(row.pictures):
            left = label_width + i * (cell + margin)
            sheet.paste(picture.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS), (left, top))
            if row.captions:
                write(pen, (left + cell / 2, top + cell + 3), row.captions[i], font(12), "#555555", "ma")
        top += height
    return sheet
