"""`inspect`: prints the contents of an embedding file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..describe import facts, neighbours
from ..formats import read_embedding
from ..text import printable
from .embedding_files import NAME_INSIDE, SECOND


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("inspect", help="print the contents of an embedding file")
    command.add_argument("file", type=Path, help="embedding in any format: .safetensors, .pt, .bin, .png, .webp")
    command.add_argument("second", type=Path, nargs="?", help=SECOND)
    command.add_argument("--word", help=NAME_INSIDE)
    command.add_argument("--model", type=Path, help="also print the nearest words in this model's vocabulary")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def run(a: argparse.Namespace) -> None:
    reading = read_embedding(a.file, a.second, a.word)
    found = facts(reading)
    if a.model:
        from ..hosts.diffusers.host import DiffusersHost

        host = DiffusersHost.load(a.model, "cpu", "float32")
        fitted, remark = reading.embedding.part_for(host.widths)
        found |= {"used": remark} if remark else {}
        for encoder, rows in fitted.items():
            own = encoder if encoder in found["encoders"] else next(iter(found["encoders"]))
            found["encoders"][own] |= neighbours(host.vocabulary(encoder), rows)
    if a.json:
        print(json.dumps(found, indent=2))
    else:
        print_indented(found)


def print_indented(values: dict[str, Any], depth: int = 0) -> None:
    for key, value in values.items():
        print("  " * depth + printable(f"{key}:" + ("" if isinstance(value, dict) else f" {value}")))
        if isinstance(value, dict):
            print_indented(value, depth + 1)
