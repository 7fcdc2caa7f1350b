"""The command line of the demo model: trains, samples with and evaluates embeddings.

python -m demo              trains one of demo/concepts, in about a minute
python -m demo generate     samples images with the demo's embeddings
python -m demo evaluate     evaluates an embedding by attributes read from the pixels instead of CLIP
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import ti_train.__main__ as command_line
from ti_train.commands import evaluate, generate
from ti_train.commands.embedding_files import load_embeddings
from ti_train.commands.model import used_vectors
from ti_train.commands.train import train_with_progress
from ti_train.data.dataset import find_pictures
from ti_train.errors import UserError
from ti_train.evaluation.evaluate import EvaluationPrompts, Judge
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.training.config import TrainConfig
from ti_train.training.initial_vectors import initial_vectors

from .concepts import Concept, load
from .judge import DrawnJudge
from .showcase import show

HERE = Path(__file__).resolve().parent
MODEL, CONCEPTS = HERE / "model", HERE / "concepts"
WORDS = sorted((HERE / "words").glob("*.safetensors"))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m demo",
        description="Without a command: trains an embedding on the demo model, in about a minute.",
    )
    add = top.add_argument
    add("--concept", default="teal-heart", help="folder in demo/concepts (default: %(default)s)")
    add("--out", type=Path, default=Path("demo-output"), help="folder for the results (default: %(default)s)")
    top.set_defaults(run=run)
    commands = top.add_subparsers()
    command = commands.add_parser("generate", help="sample images with the demo's embeddings, or others")
    generate.add_arguments(command)
    command.set_defaults(run=run_generate)
    command = commands.add_parser(
        "evaluate", help="measure image similarity and editability, from the pixels instead of CLIP"
    )
    evaluate.add_arguments(command)
    command.set_defaults(run=run_evaluate)
    return top


def run_generate(a: argparse.Namespace) -> None:
    generate.generate(DiffusersHost.load(MODEL), load_embeddings(a.embedding or WORDS), a)


def run_evaluate(a: argparse.Namespace) -> None:
    def drawn(pictures: Sequence[Image.Image]) -> tuple[Judge, EvaluationPrompts]:
        judge = DrawnJudge.load(a.images, pictures)
        return judge, judge.prompts

    evaluate.measure(DiffusersHost.load(MODEL), load_embeddings(a.embedding), find_pictures(a.images), drawn, a)


def run(a: argparse.Namespace) -> None:
    """Trains an embedding on a concept, and shows its effect. Raises UserError and OSError."""
    concept, folder = find_concept(a.concept), CONCEPTS / a.concept
    host = DiffusersHost.load(MODEL)
    preset = "Style" if concept.kind == "style" else "Balanced"
    config = TrainConfig.from_preset(preset, name=concept.name, init=concept.init)
    done = train_with_progress(host, {folder: 1}, config, a.out)
    words = {name: used_vectors(embedding, host)[0] for name, embedding in load_embeddings(WORDS).items()}
    companion = next(name for name in words if name != concept.name and find_concept(name).kind == "object")
    initial, _ = initial_vectors(host, config)
    result = show(host, concept, folder, initial, used_vectors(done.embedding, host)[0], companion, words)
    sheet = a.out / f"{concept.name}-sheet.png"
    result.sheet.save(sheet)
    print(f"Trained: '{concept.name}' ({concept.kind}) on the images in {folder}; see {sheet}")
    print(
        f"Result: new images show {result.after:.0%} of the concept (with the initial text '{concept.init}': "
        f"{result.before:.0%}) and {result.edited:.0%} of the edits, read from the pixels."
    )
    example = "a heart in the style of *" if concept.kind == "style" else "a sketch of a *"
    print(
        f'Use it: {sys.executable} -m demo generate --embedding {done.path} --prompt "{example}". '
        "In ComfyUI or a WebUI, put an embedding trained on your own model into embeddings/."
    )


def find_concept(name: str) -> Concept:
    """Raises UserError."""
    file = CONCEPTS / name / "concept.json"
    if not file.is_file():
        there = ", ".join(sorted(path.parent.name for path in CONCEPTS.glob("*/concept.json")))
        raise UserError(f"Unknown demo concept '{name}'. The concepts are {there}.")
    return load(file)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
