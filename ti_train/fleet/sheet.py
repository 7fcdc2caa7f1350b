"""The contact sheets of a fleet: for each embedding an image before its training and one after it.

They are the previews of its run, whose seed is the same at every step.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..drawing.contact_sheet import CELL, Row, contact_sheet
from ..files import write_atomically
from ..formats.layouts import provenance_in
from ..names import numbered
from ..training.checkpoint import RunFiles, header_of
from ..training.provenance import RUN
from ..training.session import Records
from .records import OWN

ACROSS, ROWS = 4, 25  # embeddings in a row, rows on a sheet
TITLE = "Before and after training"
Pair = tuple[str, Path, Path]  # an embedding, its first and its last preview


def records_of(out: Path, name: str) -> Records:
    """Where an embedding's step log, loss plot and previews are."""
    return Records.in_own_folder(out / OWN / name)


def write_sheets(names: Sequence[str], out: Path) -> tuple[list[Path], list[str]]:
    """Writes sheet.png, sheet-2.png ...; returns them, and the embeddings without previews. Raises OSError."""
    pairs = [(name, files[0], files[-1]) for name in names if len(files := _previews(out, name)) > 1]
    sheets = [pairs[i : i + ACROSS * ROWS] for i in range(0, len(pairs), ACROSS * ROWS)]
    paths = [out / f"{stem}.png" for _, stem in zip(sheets, numbered("sheet"), strict=False)]
    for sheet, path in zip(sheets, paths, strict=True):
        write_atomically(path, _drawn(sheet))
    drawn = {name for name, *_ in pairs}
    return paths, [name for name in names if name not in drawn]


def _previews(out: Path, name: str) -> list[Path]:
    """The previews of the first prompt, by step, of the run that the embedding is of; others may be there too."""
    run = header_of(RunFiles(out, name, {}).embedding).get(RUN)
    found = (out / OWN / name).glob(records_of(out, name).preview(0, 0).name.replace("00000", "*"))
    by_step = sorted(found, key=lambda file: (len(file.name), file.name))
    return [file for file in by_step if run and _run_of(file) == run]


def _run_of(preview: Path) -> str | None:
    with Image.open(preview) as picture:
        return provenance_in(picture.info).get(RUN)


def _drawn(pairs: Sequence[Pair]) -> bytes:
    """A sheet as a PNG."""
    drawn = io.BytesIO()
    rows = [_row(pairs[i : i + ACROSS]) for i in range(0, len(pairs), ACROSS)]
    contact_sheet(rows, TITLE).save(drawn, "PNG")
    return drawn.getvalue()


def _row(pairs: Sequence[Pair]) -> Row:
    pictures, captions = [], []
    for name, before, after in pairs:
        for file, caption in ((before, ""), (after, name)):
            with Image.open(file) as picture:
                pictures.append(picture.convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS))
            captions.append(caption)
    return Row("", pictures, captions)
