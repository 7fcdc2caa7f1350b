"""`generate`: samples pictures with learnt words."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files import file_name
from ..formats import load_embedding
from ..hosts.base import SampleRequest, Words
from ..prompts import parse
from .model import DEMO, add_model_arguments, load_model, on_device


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("generate", help="sample pictures with learnt words")
    add = command.add_argument
    add_model_arguments(command, demo="the model and the words that come along")
    add("--embedding", type=Path, action="append", default=[], help="a learnt word (repeatable)")
    add("--prompt", required=True, help="a word is written <its-file-name>, and * when it is the only one")
    add("--negative", default="", help="what the pictures should not show")
    add("--number", type=int, default=4, help="pictures (default: %(default)s)")
    add("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    add("--guidance", type=float, default=5.0, help="classifier-free guidance (default: %(default)s)")
    add("--resolution", type=int, default=0, help="side in pixels (default: the model's own)")
    add("--seed", type=int, default=0, help="of the first picture (default: %(default)s)")
    add("--out", type=Path, default=Path("."), help="folder for the pictures (default: this one)")
    command.set_defaults(run=run)


def run(a: argparse.Namespace) -> None:
    files = sorted((DEMO / "words").glob("*.safetensors")) if a.demo and not a.embedding else a.embedding
    host = load_model(a)
    words: Words = {file.stem: on_device(load_embedding(file), host) for file in files}
    prompt = parse(a.prompt, words)
    side = a.resolution or host.resolution
    a.out.mkdir(parents=True, exist_ok=True)
    for seed in range(a.seed, a.seed + a.number):
        request = SampleRequest((prompt,), (seed,), side, side, a.steps, a.guidance, parse(a.negative, words) or ("",))
        path = a.out / f"{file_name(a.prompt)}-{seed}.png"
        host.sample(request, words)[0].save(path)
        print(path)
