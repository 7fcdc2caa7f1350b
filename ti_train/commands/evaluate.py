"""`evaluate`: measures image similarity and editability."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..data.dataset import find_pictures, read_pictures
from ..embedding import Embedding
from ..evaluation.clip import PAPERS_MODEL, Clip, ClipJudge
from ..evaluation.dino import Dino
from ..evaluation.evaluate import (
    PAPERS_PROMPTS,
    EvaluationPrompts,
    Judge,
    Subject,
    evaluate,
    initial_texts,
    prompt_remarks,
    settings_of,
    training_pictures,
)
from ..evaluation.measures import Measure, further_measures, gallery
from ..evaluation.options import FOUND, HELP
from ..evaluation.samples import Sampling
from ..evaluation.scores import table, write_scores
from ..text import Remarks
from .embedding_files import load_embeddings
from .model import add_model_arguments, load_model, used_vectors
from .progress import scores_of

if TYPE_CHECKING:
    from ..hosts.diffusers.host import DiffusersHost

Judging = Callable[[Sequence[Image.Image]], tuple[Judge, EvaluationPrompts]]  # from the training images


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("evaluate", help="measure image similarity and editability as in the paper")
    add_model_arguments(command)
    add_arguments(command)
    add = command.add_argument
    add("--style", action="store_true", help="the embedding is a style")
    add_judge(command)
    add("--dino", type=Path, help=HELP["dino"])
    add("--gallery", type=Path, help=f"folder with a subfolder of images for each look-alike: {FOUND}")
    command.set_defaults(run=run)


def add_judge(command: argparse.ArgumentParser) -> None:
    """The arguments of CLIP."""
    add = command.add_argument
    add("--clip-model", default=PAPERS_MODEL, help="model of open_clip (default: %(default)s, as in the paper)")
    add("--clip-weights", default="", help="file with its weights, or open_clip's name of pretrained weights")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments except those of the model and the judge."""
    add = command.add_argument
    add("--embedding", type=Path, action="append", required=True, help="embedding file (repeatable, to compare)")
    add("--images", type=Path, required=True, help="folder with the training images")
    add("--init", default="", help="initial text, as a reference (default: from the embedding files)")
    add(
        "--prompts",
        type=Path,
        help="text file with one edit prompt per line, * is the embedding (default: the judge's prompts)",
    )
    add("--number", type=int, default=64, help="samples per prompt (default: %(default)s)")
    add("--steps", type=int, default=50, help="DDIM steps (default: %(default)s)")
    add("--guidance", type=float, default=5.0, help=f"{HELP['guidance']} (default: %(default)s)")
    add("--resolution", type=int, default=0, help=HELP["resolution"])
    add("--seed", type=int, default=0, help=f"{HELP['seed']} (default: %(default)s)")
    add("--batch-size", type=int, default=4, help="samples per forward pass (default: %(default)s)")
    add("--out", type=Path, default=Path("evaluation"), help="folder for samples and results (default: %(default)s)")


def run(a: argparse.Namespace) -> None:
    embeddings = load_embeddings(a.embedding)
    clip, dino = Clip.load(a.clip_model, a.clip_weights), Dino.load(a.dino) if a.dino else None
    files = find_pictures(a.images)
    host = load_model(a)

    def in_clips_space(pictures: Sequence[Image.Image]) -> tuple[Judge, EvaluationPrompts]:
        return ClipJudge(clip.to(host.device), pictures), PAPERS_PROMPTS["style" if a.style else "object"]

    def further(side: int, warn: Remarks) -> list[Measure]:
        pictures = [*read_pictures(files, side, Remarks())]
        others = gallery(a.gallery, pictures, side, warn) if a.gallery else []
        in_dinos_space = dino.to(host.device).features if dino else None
        return further_measures(pictures, others, clip.features, in_dinos_space)

    measure(host, embeddings, files, in_clips_space, a, further)


def measure(
    host: DiffusersHost,
    embeddings: Mapping[str, Embedding],
    files: Sequence[Path],
    judging: Judging,
    a: argparse.Namespace,
    further: Callable[[int, Remarks], Sequence[Measure]] = lambda _side, _warn: (),
) -> None:
    """Samples, then writes and prints the scores. files: the training images. Raises UserError and OSError.

    further: the measures beside the judge's, from the side of the samples; appends to the warnings.
    """
    from ..hosts.diffusers.ddim import sample_with_ddim

    sample_with_ddim(host)
    sampling = Sampling(a.resolution or host.resolution, a.number, a.steps, a.guidance, a.seed, a.batch_size)
    warnings = Remarks()
    judge, prompts = judging(training_pictures(files, sampling.side, warnings))
    prompts, measures = prompts.with_edits(a.prompts) if a.prompts else prompts, further(sampling.side, warnings)
    references = initial_texts(embeddings.values(), a.init)
    if not references:
        warnings.append("The embedding files have no initial text to use as a reference. Set it with --init.")
    used = {name: used_vectors(embedding, host) for name, embedding in embeddings.items()}
    warnings += [remark for _, remarks in used.values() for remark in remarks]
    warnings += prompt_remarks(host, embeddings.values(), prompts, "prompt")
    for message in warnings:
        print(f"Warning: {message}", file=sys.stderr)
    samples = a.out / "samples"
    print(f"Sampling to {samples}. You can interrupt: the same command continues later.")
    subjects = [*references, *(Subject(name, vectors) for name, (vectors, _) in used.items())]
    scores = scores_of(evaluate(host, subjects, judge, prompts, sampling, samples, measures))
    print(table(scores))
    print(*write_scores(scores, settings_of(host, judge, sampling, prompts), a.out), sep="\n")
