"""Writing a word where the user wants it: checked before anything is written, and said what it cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .config import check_name
from .describe import rounding
from .errors import UserError
from .formats import PRECISIONS, Reading, files_of, layout_for, write_embedding


def export(
    reading: Reading, out: Path, layout: str | None, precision: str, name: str | None, overwrite: bool
) -> list[str]:
    """Writes a word to `out` and tells, line by line, what was written.

    layout: None for what the ending says; name: None for the file's. Raises UserError and OSError.
    """
    layout = layout_for(out, layout)
    word = replace(reading.embedding, name=name or out.stem)
    check_name(word.name)
    for path in files_of(word, out, layout):
        if path.exists() and not overwrite:
            raise UserError(f"'{path}' exists. Choose another name, or give --overwrite.")
    if not out.parent.is_dir():
        raise UserError(f"There is no folder '{out.parent}'. Make it, or write into another.")
    paths = write_embedding(word, out, layout, PRECISIONS[precision], reading.outputs)
    sizes = ", ".join(f"{v.shape[0]} x {v.shape[1]} ({encoder})" for encoder, v in word.vectors.items())
    lines = [f"Wrote {' and '.join(map(str, paths))}: {sizes}, {precision}, as {layout}."]
    if precision != "fp32":
        lines.append(rounding(word, precision))
    if reading.outputs and layout != "onetrainer":
        lines.append("The vectors for the encoders' output are left out: no tool but OneTrainer uses them.")
    return lines
