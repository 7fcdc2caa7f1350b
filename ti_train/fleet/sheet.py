"""The contact sheets of a fleet: for each embedding an image before its training and one after it.

They are the previews of the run, whose seed is the same at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..drawing.contact_sheet import Row, contact_sheet
from ..names import numbered
from ..training.session import Records
from .records import OWN

ACROSS, ROWS = 4, 25  # embeddings in a row, rows on a sheet
TITLE = "Before and after training"


def records_of(out: Path, name: str) -> Records:
    """Where an embedding's step log, loss plot and previews are."""
    return Records.in_own_folder(out / OWN / name)


def write_sheets(names: Sequence[str], out: Path) -> list[Path]:
    """Writes sheet.png, sheet-2.png ... for the embeddings that have previews; returns the paths. Raises OSError."""
    pairs = [(name, files[0], files[-1]) for name in names if len(files := _previews(out, name)) > 1]
    rows = [_row(pairs[i : i + ACROSS]) for i in range(0, len(pairs), ACROSS)]
    sheets = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
    paths = []
    for sheet, stem in zip(sheets, numbered("sheet"), strict=False):
        paths.append(out / f"{stem}.png")
        contact_sheet(sheet, TITLE).save(paths[-1])
    return paths


def _previews(out: Path, name: str) -> list[Path]:
    """The previews of the first prompt, by step."""
    return sorted((out / OWN / name).glob(records_of(out, name).preview(0, 0).name.replace("00000", "?????")))


def _row(pairs: Sequence[tuple[str, Path, Path]]) -> Row:
    pictures, captions = [], []
    for name, before, after in pairs:
        for file, caption in ((before, ""), (after, name)):
            with Image.open(file) as picture:
                pictures.append(picture.convert("RGB"))
            captions.append(caption)
    return Row("", pictures, captions)
