"""`convert`: writes an embedding in the layout of another tool."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UserError
from ..formats import read_embedding
from .embedding_files import NAME_INSIDE, SECOND, add_export_arguments, export


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "convert",
        help="write an embedding in the layout of another tool",
        usage="python -m ti_train convert IN [IN2] OUT [options]",
    )
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help=f"IN: any embedding. IN2: {SECOND}")
    command.add_argument("--word", help=NAME_INSIDE)
    add_export_arguments(command)
    command.set_defaults(run=run)


def run(a: argparse.Namespace) -> None:
    *sources, out = a.files
    if not 1 <= len(sources) <= 2:
        raise UserError(
            "Give the file to read (two for Stable Diffusion XL in diffusers' layout) and the one to write."
        )
    export(read_embedding(sources[0], sources[1] if len(sources) == 2 else None, a.word), out, a)
