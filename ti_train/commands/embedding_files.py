"""Embedding files on the command line: loading them by name, and the arguments for writing them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..describe import writing
from ..editability import HELP, editable
from ..embedding import Embedding
from ..errors import UserError
from ..formats import ENDINGS, PRECISIONS, Reading, files_of, layout_for, load_embedding, write_embedding
from ..names import bare_name, check_name

SECOND = "the second file of Stable Diffusion XL in diffusers' layout"
NAME_INSIDE = "name of the embedding, if the file has several"


def load_embeddings(files: Iterable[Path]) -> dict[str, Embedding]:
    """Name of the file, without extension -> embedding. Raises UserError."""
    embeddings: dict[str, Embedding] = {}
    for file in files:
        if file.stem in embeddings:
            raise UserError(f"Two embedding files are named '{file.stem}'. Rename one of them.")
        embeddings[file.stem] = load_embedding(file)
    return embeddings


def add_export_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--to", choices=ENDINGS, help="layout (default: by OUT's extension: .safetensors, .pt a1111, .png)")
    add("--dtype", choices=PRECISIONS, default="fp32", help="precision of the vectors (default: %(default)s)")
    add("--editability", type=float, default=0.0, help=HELP)
    add("--norm", type=float, default=0.0, help="L2 norm to scale every vector to (default: 0, unchanged)")
    add("--strength", type=float, default=1.0, help="factor for the vectors (default: %(default)s)")
    add("--name", help="name inside the file (default: that of OUT)")
    add("--overwrite", action="store_true", help="replace OUT if it exists")


def export(reading: Reading, out: Path, a: argparse.Namespace) -> None:
    """Writes an embedding to `out` and prints a summary. Raises UserError before writing, and OSError."""
    layout = layout_for(out, a.to)
    name = bare_name(check_name(a.name or out.stem))
    embedding = replace(editable(reading.embedding, a.editability).scaled(a.strength, a.norm), name=name)
    for path in files_of(embedding, out, layout):
        if path.exists() and not a.overwrite:
            raise UserError(f"'{path}' exists. Choose another name, or use --overwrite.")
    if not out.parent.is_dir():
        raise UserError(f"The folder '{out.parent}' does not exist. Create it, or choose another.")
    paths = write_embedding(embedding, out, layout, PRECISIONS[a.dtype], reading.outputs)
    print("\n".join(writing(embedding, map(str, paths), layout, a.dtype, bool(reading.outputs))))
