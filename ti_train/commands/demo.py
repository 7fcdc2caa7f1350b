"""`demo`: learns a word on the model that comes along, and shows what it does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import UserError
from ..training.config import TrainConfig
from ..training.initial_vectors import starting_vectors
from .embedding_files import load_words
from .model import DEMO, DEMO_WORDS, on_device
from .train import learn


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("demo", help="learn a word on the model that comes along, in about a minute")
    command.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for the results (default: %(default)s)"
    )
    command.add_argument("--concept", default="teal-heart", help="a folder of demo/concepts (default: %(default)s)")
    command.set_defaults(run=run)


def run(a: argparse.Namespace) -> None:
    from demo.concepts import load
    from demo.showcase import show

    from ..hosts.diffusers.host import DiffusersHost

    folder = DEMO / "concepts" / a.concept
    if not (folder / "concept.json").is_file():
        there = ", ".join(sorted(path.parent.name for path in (DEMO / "concepts").glob("*/concept.json")))
        raise UserError(f"There is no demo concept '{a.concept}'. There are: {there}.")
    concept = load(folder / "concept.json")
    host = DiffusersHost.load(DEMO / "model")
    preset = "Style" if concept.kind == "style" else "Balanced"
    config = TrainConfig.from_preset(preset, name=concept.name, init=concept.init)
    done = learn(host, {folder: 1}, config, a.out)
    words = {name: on_device(embedding, host) for name, embedding in load_words(DEMO_WORDS).items()}
    kinds = {word: load(DEMO / "concepts" / word / "concept.json").kind for word in words}
    companion = next(word for word, kind in kinds.items() if kind == "object" and word != concept.name)
    start, _ = starting_vectors(host, config)
    result = show(host, concept, folder, start, on_device(done.embedding, host), companion, words)
    sheet = a.out / f"{concept.name}-sheet.png"
    result.sheet.save(sheet)
    print(f"Learnt: '{concept.name}' ({concept.kind}) from the pictures in {folder}; see {sheet}")
    print(
        f"How well: {result.after:.0%} of it is seen in new pictures, where its initial word '{concept.init}' shows "
        f"{result.before:.0%}; {result.edited:.0%} of the edits show (read from the pixels)."
    )
    example = "a heart in the style of *" if concept.kind == "style" else "a sketch of a *"
    print(
        f"How to use it: {sys.executable} -m ti_train generate --demo --embedding {done.path} "
        f'--prompt "{example}"; in ComfyUI or a WebUI, put a file learnt on your own model into embeddings/.'
    )
