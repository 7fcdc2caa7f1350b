"""The tables, with paired bootstrap intervals, and the picture of fidelity against editability."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from PIL import Image

from ti_train.drawing.score_plot import Point, score_plot

from .records import Record

RESAMPLES = 4000
MEASURES = ("fidelity", "edit", "kept")
Interval = tuple[float, float]
Row = Sequence[Record]  # the records of one arm at one number of images


def rows_of(records: Sequence[Record], world: str) -> dict[tuple[str, int], list[Record]]:
    """The records of a world by arm and images."""
    rows: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        if record.world == world:
            rows.setdefault((record.arm, record.images), []).append(record)
    return rows


def difference(row: Row, base: Row, measure: str) -> tuple[float, Interval, int] | None:
    """The mean of row - base over their common pairs of concept and seed, its 95 % interval, and the pairs' number.

    Concepts are resampled, then the seeds of each: runs of one concept are no independent evidence of a method. (Efron
    and Tibshirani 1993, chapter 8.) None without common pairs.
    """
    theirs = {record.key: getattr(record, measure) for record in base}
    by_concept: dict[str, list[float]] = {}
    for record in row:
        if record.key in theirs:
            by_concept.setdefault(record.concept, []).append(getattr(record, measure) - theirs[record.key])
    if not by_concept:
        return None
    rng, concepts = random.Random(0), list(by_concept.values())

    def resampled() -> float:
        return mean(rng.choice(pairs) for pairs in rng.choices(concepts, k=len(concepts)) for _ in pairs)

    means = sorted(resampled() for _ in range(RESAMPLES))
    pairs = [pair for concept in concepts for pair in concept]
    return mean(pairs), (means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]), len(pairs)


def table(
    rows: Mapping[tuple[str, int], Row], order: Sequence[str], base: tuple[str, int], among: Callable[[Record], bool]
) -> str:
    """A table in Markdown: means of each arm and its differences to the base. among: the records that count."""
    further = list(dict.fromkeys(n for row in rows.values() for record in row if among(record) for n in record.further))
    heads = ["arm", "images", "runs", "fidelity (worst)", "below .9", *(f"{name} (worst)" for name in further)]
    heads += ["edit shown", "kept under edit", "norm", "seconds"]
    heads.append(f"fidelity, edit, kept less {base[0]} {base[1]} [95 %]")
    lines = [line(heads), "|---" * len(heads) + "|"]
    for arm, images in sorted(rows, key=lambda row: (order.index(row[0]) if row[0] in order else 99, row[1])):
        row = [record for record in rows[arm, images] if among(record)]
        if not row:
            continue
        fidelity = [record.fidelity for record in row]
        cells = [arm, str(images), str(len(row)), with_worst(fidelity), str(sum(value < 0.9 for value in fidelity))]
        cells += [with_worst([record.further[n] for record in row if n in record.further]) for n in further]
        cells += [f"{mean(getattr(record, name) for record in row):.3f}" for name in ("edit", "kept")]
        cells += [f"{mean(record.norm for record in row):.2f}", f"{mean(record.seconds for record in row):.0f}"]
        cells.append("; ".join(told(difference(row, rows.get(base, ()), measure)) for measure in MEASURES))
        lines.append(line(cells))
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def with_worst(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.2f})" if values else ""


def told(found: tuple[float, Interval, int] | None) -> str:
    if found is None:
        return "-"
    middle, (low, high), _ = found
    return f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"


def each_concept(rows: Mapping[tuple[str, int], Row], order: Sequence[str]) -> str:
    """Fidelity of each concept, its seeds in a row."""
    concepts = sorted({record.concept for row in rows.values() for record in row})
    lines = [f"| arm | images | {' | '.join(concepts)} |", "|---" * (2 + len(concepts)) + "|"]
    for arm, images in sorted(rows, key=lambda row: (order.index(row[0]) if row[0] in order else 99, row[1])):
        cells = []
        for concept in concepts:
            own = sorted((r for r in rows[arm, images] if r.concept == concept), key=lambda r: r.seed)
            cells.append(" ".join(f"{record.fidelity:.2f}".lstrip("0") for record in own))
        lines.append(f"| {arm} | {images} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(rows: Mapping[tuple[str, int], Row], world: str) -> Image.Image:
    """Edit shown across, fidelity up; baselines are hollow."""
    points = [
        Point(
            arm if arm.endswith(f" {images}") else f"{arm} {images}",
            mean(record.edit for record in row),
            mean(record.fidelity for record in row),
            arm.startswith(("Paper", "diffusers")),
        )
        for (arm, images), row in rows.items()
    ]
    return score_plot(points, f"{world}: fidelity against editability", ("edit shown", "fidelity"))
