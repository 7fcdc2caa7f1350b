"""What an evaluation leaves for people: a table as text, CSV and JSON, and the paper's plot of its two axes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ..files import write_atomically
from ..lettering import font, legible, write
from ..report import GRID, INK, MARK, PAPER

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Score:
    """One row: kind is "word", "initial word" or "training pictures"; edits: prompt -> text similarity."""

    label: str
    kind: str
    image_similarity: float
    edits: dict[str, float]

    @property
    def text_similarity(self) -> float:
        """The mean over the edit prompts."""
        return sum(self.edits.values()) / len(self.edits)

    @property
    def name(self) -> str:
        return f'initial word "{self.label}"' if self.kind == "initial word" else self.label


def table(scores: Sequence[Score]) -> str:
    """Rows of name, image similarity and text similarity, for a terminal."""
    width = max(len(score.name) for score in scores)
    lines = [f"{'':{width}}  image similarity  text similarity"]
    lines += [f"{s.name:{width}}  {s.image_similarity:16.3f}  {s.text_similarity:15.3f}" for s in scores]
    return "\n".join(lines)


def write_scores(scores: Sequence[Score], settings: Mapping[str, object], folder: Path) -> list[Path]:
    """Writes evaluation.csv, .json and .png; the JSON says how it was measured as well. Raises OSError."""
    rows = [(s.label, s.kind, s.image_similarity, s.text_similarity, *s.edits.values()) for s in scores]
    columns = ("label", "kind", "image_similarity", "text_similarity", *scores[0].edits)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([[f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows])
    whole = [
        {"label": s.label, "kind": s.kind, "image_similarity": s.image_similarity}
        | {"text_similarity": s.text_similarity, "edits": s.edits}
        for s in scores
    ]
    drawing = io.BytesIO()
    plot(scores, str(settings["judge"])).save(drawing, "PNG")
    contents = {
        "csv": text.getvalue().encode(),
        "json": json.dumps({"settings": settings, "scores": whole}, indent=1, ensure_ascii=False).encode(),
        "png": drawing.getvalue(),
    }
    files = [folder / f"evaluation.{suffix}" for suffix in contents]
    for file, data in zip(files, contents.values(), strict=True):
        write_atomically(file, data)
    return files


def plot(scores: Sequence[Score], title: str, width: int = 900, height: int = 620) -> Image.Image:
    """Text similarity to the right, image similarity upwards; references hollow (Gal et al. 2022, figure 10)."""
    left, top, right, bottom = 78, 50, width - 24, height - 56
    low_x, high_x = with_margin([s.text_similarity for s in scores])
    low_y, high_y = with_margin([s.image_similarity for s in scores])

    def point(x: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * (x - low_x) / (high_x - low_x),
            bottom - (bottom - top) * (y - low_y) / (high_y - low_y),
        )

    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    write(pen, (left, 14), title, font(17))
    for i in range(6):
        x, y = low_x + (high_x - low_x) * i / 5, low_y + (high_y - low_y) * i / 5
        across, up = point(x, y)
        pen.line([(left, up), (right, up)], GRID)
        pen.line([(across, top), (across, bottom)], GRID)
        write(pen, (left - 8, up), f"{y:.3f}", font(13), anchor="rm")
        write(pen, (across, bottom + 6), f"{x:.3f}", font(13), anchor="ma")
    write(pen, ((left + right) / 2, height - 26), "text similarity (editability)", font(13), anchor="ma")
    write(pen, (right, 18), "upwards: image similarity (likeness)", font(13), "#555555", "ra")
    taken: list[Box] = []
    for score in scores:
        x, y = point(score.text_similarity, score.image_similarity)
        is_word = score.kind == "word"
        pen.ellipse([x - 6, y - 6, x + 6, y + 6], INK if is_word else PAPER, INK if is_word else MARK, 2)
        taken.append((x - 7, y - 7, x + 7, y + 7))
    for score, mark in zip(scores, tuple(taken), strict=True):
        name = legible(score.name, font(14))
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
