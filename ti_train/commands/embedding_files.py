"""What the commands share about embedding files: how words are named, read and written."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..describe import writing
from ..embedding import Embedding
from ..errors import UserError
from ..files import check_name
from ..formats import ENDINGS, PRECISIONS, Reading, files_of, layout_for, load_embedding, write_embedding

SECOND = "the second file of Stable Diffusion XL in diffusers' layout"
NAME_INSIDE = "which word, where a file holds several"


def load_embeddings(files: Iterable[Path]) -> dict[str, Embedding]:
    """Words by their files' names. Raises UserError."""
    embeddings: dict[str, Embedding] = {}
    for file in files:
        if file.stem in embeddings:
            raise UserError(f"Two of the embedding files are called '{file.stem}'. Rename one, to tell them apart.")
        embeddings[file.stem] = load_embedding(file)
    return embeddings


def add_export_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--to", choices=ENDINGS, help="layout (default: what OUT's ending says: .safetensors, .pt a1111, .png)")
    add("--dtype", choices=PRECISIONS, default="fp32", help="of the values written (default: %(default)s)")
    add("--norm", type=float, default=0.0, help="length that every vector is brought to (default: 0, as they are)")
    add("--strength", type=float, default=1.0, help="factor of the vectors (default: %(default)s)")
    add("--name", help="the word's name inside the file (default: OUT's own)")
    add("--overwrite", action="store_true", help="replace OUT if it exists")


def export(reading: Reading, out: Path, a: argparse.Namespace) -> None:
    """Writes a word to `out` and says what was written. Raises UserError, before anything is, and OSError."""
    layout = layout_for(out, a.to)
    embedding = replace(reading.embedding.scaled(a.strength, a.norm), name=a.name or out.stem)
    check_name(embedding.name)
    for path in files_of(embedding, out, layout):
        if path.exists() and not a.overwrite:
            raise UserError(f"'{path}' exists. Choose another name, or give --overwrite.")
    if not out.parent.is_dir():
        raise UserError(f"There is no folder '{out.parent}'. Make it, or write into another.")
    paths = write_embedding(embedding, out, layout, PRECISIONS[a.dtype], reading.outputs)
    print("\n".join(writing(embedding, map(str, paths), layout, a.dtype, bool(reading.outputs))))
