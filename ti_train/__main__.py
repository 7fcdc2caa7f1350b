"""The command line: python -m ti_train {train,fleet,generate,evaluate,inspect,convert,merge}."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .commands import convert, evaluate, fleet, generate, inspect, merge, train
from .commands.terminal import show_any_text
from .device import LOWER_RESOLUTION, out_of_memory_as_user_error
from .errors import UserError

COMMANDS = (train, fleet, generate, evaluate, inspect, convert, merge)
INTERRUPTED = 130
DOES_NOT_FIT = f"{LOWER_RESOLUTION} A smaller --batch-size needs less; --device cpu uses the computer's memory."


def main(argv: Sequence[str] | None = None) -> int:
    return run(parser(), argv)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit status."""
    show_any_text()
    arguments = parser.parse_args(argv)
    try:
        with out_of_memory_as_user_error(DOES_NOT_FIT):
            arguments.run(arguments)
    except (UserError, OSError) as error:
        print(f"ti_train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m ti_train",
        description="Trains an embedding for a text-to-image model from 3 to 5 images (textual inversion). "
        "The model itself is not changed.",
    )
    top.add_argument("--version", action="version", version=__version__)
    subparsers = top.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return top


if __name__ == "__main__":
    sys.exit(main())
