"""The results of an evaluation: a table as text, CSV and JSON, and the paper's plot."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..drawing.score_plot import Point, score_plot
from ..files import write_atomically


@dataclass(frozen=True)
class Score:
    """Scores of a subject. kind: "word", "initial word" or "training pictures"; edits: prompt -> text similarity.

    more: the measures of measures.py, by name.
    """

    label: str
    kind: str
    image_similarity: float
    edits: dict[str, float]
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def text_similarity(self) -> float:
        """Mean over the edit prompts."""
        return sum(self.edits.values()) / len(self.edits)

    @property
    def name(self) -> str:
        return name_of(self.label, self.kind)


def name_of(label: str, kind: str) -> str:
    """A subject as shown to the user."""
    return f'initial text "{label}"' if kind == "initial word" else label


def table(scores: Sequence[Score]) -> str:
    """Name, image similarity, text similarity and the other measures as a text table."""
    width = max(len(score.name) for score in scores)
    columns = ["image similarity", "text similarity", *scores[0].more]
    lines = [f"{'':{width}}  " + "  ".join(columns)]
    for score in scores:
        values = (score.image_similarity, score.text_similarity, *score.more.values())
        cells = (f"{value:{len(column)}.3f}" for value, column in zip(values, columns, strict=True))
        lines.append(f"{score.name:{width}}  " + "  ".join(cells))
    return "\n".join(lines)


def plot(scores: Sequence[Score], judge: str) -> Image.Image:
    """The paper's plot of both measures."""
    points = [Point(s.name, s.text_similarity, s.image_similarity, s.kind != "word") for s in scores]
    return score_plot(points, judge)


def write_scores(scores: Sequence[Score], settings: Mapping[str, object], folder: Path) -> list[Path]:
    """Writes evaluation.csv, .json (with the settings) and .png. Raises OSError."""
    rows = [
        (s.label, s.kind, s.image_similarity, s.text_similarity, *s.edits.values(), *s.more.values()) for s in scores
    ]
    columns = ("label", "kind", "image_similarity", "text_similarity", *scores[0].edits, *scores[0].more)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([[f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows])
    whole = [
        {"label": s.label, "kind": s.kind, "image_similarity": s.image_similarity}
        | {"text_similarity": s.text_similarity, "edits": s.edits, "more": dict(s.more)}
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
