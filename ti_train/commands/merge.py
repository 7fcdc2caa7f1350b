"""`merge`: merges embeddings into one."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..editability import merge_with_initial
from ..embedding import MERGES
from ..formats import Reading, load_embedding
from .embedding_files import add_export_arguments, export


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "merge", help="merge embeddings into one", usage="python -m ti_train merge IN IN [IN ...] OUT [options]"
    )
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="embedding files, and the file to write")
    command.add_argument(
        "--how",
        choices=MERGES,
        default=MERGES[0],
        help="concatenate or sum the vectors, or interpolate spherically between two embeddings (default: %(default)s)",
    )
    command.add_argument(
        "--weights",
        type=numbers,
        metavar="W,W",
        help="a factor for each embedding; for interpolate only their ratio counts (default: all 1)",
    )
    add_export_arguments(command)
    command.set_defaults(run=run)


def numbers(text: str) -> list[float]:
    """Parses comma-separated numbers. Raises ArgumentTypeError."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers such as 1,0.5") from None


def run(a: argparse.Namespace) -> None:
    *sources, out = a.files
    embeddings = [load_embedding(source) for source in sources]
    export(
        Reading(merge_with_initial(embeddings, a.how, a.weights or [1.0] * len(embeddings), out.stem), "merged", {}),
        out,
        a,
    )
