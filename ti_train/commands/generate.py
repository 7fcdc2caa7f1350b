"""`generate`: samples pictures with learnt words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from ..embedding import Embedding
from ..evaluation.samples import Sampling
from ..files import file_name
from ..host import Embeddings, Host, SampleRequest, Slot
from ..prompts import parse
from .embedding_files import load_embeddings
from .model import add_model_arguments, load_model, on_device


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("generate", help="sample pictures with learnt words")
    add_model_arguments(command)
    add_arguments(command)
    command.set_defaults(run=run)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """All but the model's."""
    add = command.add_argument
    add("--embedding", type=Path, action="append", default=[], help="a learnt word (repeatable)")
    add("--prompt", required=True, help="a word is written <its-file-name>, and * when it is the only one")
    add("--negative", default="", help="what the pictures should not show")
    add("--number", type=int, default=4, help="pictures (default: %(default)s)")
    add("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    add("--guidance", type=float, default=5.0, help="classifier-free guidance (default: %(default)s)")
    add("--resolution", type=int, default=0, help="side in pixels (default: the model's own)")
    add("--seed", type=int, default=0, help="of the first picture (default: %(default)s)")
    add("--out", type=Path, default=Path("."), help="folder for the pictures (default: this one)")


def run(a: argparse.Namespace) -> None:
    embeddings = load_embeddings(a.embedding)
    generate(load_model(a), embeddings, a)


def generate(host: Host, embeddings: Mapping[str, Embedding], a: argparse.Namespace) -> None:
    """Writes a picture for each seed, and prints its path. Raises UserError and OSError."""
    words: Embeddings = {name: on_device(embedding, host) for name, embedding in embeddings.items()}
    prompt, negative = parse(a.prompt, words), parse(a.negative, words) or ("",)
    if a.embedding and not any(isinstance(piece, Slot) for piece in prompt):
        marks = " or ".join(f"<{name}>" for name in words)
        print(f"Warning: the prompt has no learnt word in it. It is written {marks}.", file=sys.stderr)
    sampling = Sampling(a.resolution or host.resolution, a.number, a.steps, a.guidance, a.seed)
    a.out.mkdir(parents=True, exist_ok=True)
    for seed in sampling.seeds:
        request = SampleRequest(
            (prompt,), (seed,), sampling.side, sampling.side, sampling.steps, sampling.guidance, negative
        )
        path = a.out / f"{file_name(a.prompt)}-{seed}.png"
        host.sample(request, words)[0].save(path)
        print(path)
