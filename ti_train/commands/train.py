"""`train`: learns a word from folders of pictures."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import get_args

from ..data.dataset import NO_REPEATS, Dataset, encode_pictures, find_pictures, read_pictures, with_repeats
from ..data.masks import Source
from ..drawing.loss_plot import loss_plot
from ..errors import UserError
from ..events import Checkpoint, Done, Preview, Step, Warning
from ..host import Host
from ..prompts import BUILT_IN, Templates
from ..training.config import PRESETS, TrainConfig, number_or_schedule
from ..training.out_of_memory import train_in_memory
from ..training.step_log import StepLog
from .model import DEVICE, MODEL, PREDICTION, PREDICTION_TYPES
from .progress import ProgressBar


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    balanced = TrainConfig(name="x", init="x")
    command = commands.add_parser("train", help="learn a word from a folder of pictures")
    add = command.add_argument
    add("--model", type=Path, required=True, help=MODEL)
    add("--prediction-type", choices=PREDICTION_TYPES, help=PREDICTION)
    add(
        "--images",
        action="append",
        required=True,
        metavar="FOLDER",
        help="folder with the training pictures; 3 to 5 are best (repeatable; FOLDER:3 comes three times as often)",
    )
    add("--name", required=True, help="the word's name, which is its file's name too, such as my-cat")
    add(
        "--init",
        required=True,
        help='what the pictures show in a word or two ("cat"), or an embedding file of any layout to go on from',
    )
    add(
        "--preset",
        choices=PRESETS,
        help="values of all settings that are not given (default: Balanced, with --style Style)",
    )
    add("--steps", type=int, help=f"updates of the word (Balanced: {balanced.steps})")
    add(
        "--lr",
        help=f'learning rate, or rates with their last steps "5e-3:100, 1e-3" (Balanced: {balanced.learning_rate})',
    )
    add("--batch-size", type=int, help=f"pictures a step (Balanced: {balanced.batch_size})")
    add("--accumulation", type=int, help="passes a step, where the memory does not hold a batch (default: 1)")
    add("--num-vectors", type=int, help="vectors of the word; more copy more and edit worse (default: 1)")
    add(
        "--resolution",
        type=int,
        help="side in pixels that a square picture is scaled to; others get as many pixels (default: the model's own)",
    )
    add(
        "--square",
        action="store_true",
        default=None,
        help="cut the middle square out of every picture; by default about all of it is kept, in its own proportions "
        "(a step takes a pass for each of its pictures' shapes)",
    )
    add("--seed", type=int, help="another seed gives another, equally good word (default: 0)")
    add("--device", default="auto", help=DEVICE)
    add(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="(default: what is fastest here)",
    )
    add("--templates", help=f"{', '.join(BUILT_IN)}, or a text file with a template a line (default: object)")
    add(
        "--captions",
        action="store_true",
        help="use each picture's caption in its prompts: the .txt file beside it, or metadata.jsonl or .csv",
    )
    add("--shuffle-tags", action="store_true", default=None, help="a caption's comma-separated tags in changing order")
    add("--drop-tags", type=float, metavar="P", help="leave each tag out with probability P (default: 0)")
    add("--keep-tags", type=int, metavar="N", help="tags at the beginning that always stay there (default: 0)")
    add("--style", action="store_true", help="learn a style instead of an object")
    add(
        "--flip",
        action="store_true",
        default=None,
        help="train on mirrored copies too; not for what has a left and a right",
    )
    add(
        "--mask",
        choices=get_args(Source),
        help="what is learnt of a picture: the white of NAME-mask.png beside it or of masks/NAME.png (files, the "
        "default), else of its alpha channel (alpha), or all of it (none)",
    )
    add(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        help="less memory for a third more time",
    )
    add(
        "--deterministic",
        action="store_true",
        default=None,
        help="on a GPU too, the same digits every time, where PyTorch has kernels for it: slower (a CPU needs none)",
    )
    add(
        "--preview-prompt",
        action="append",
        metavar="PROMPT",
        help="sampled while training; * is the word (repeatable)",
    )
    add("--preview-every", type=int, metavar="N", help="steps between previews (default: 0, none)")
    add("--preview-negative", metavar="PROMPT", help="what previews should not show")
    add("--preview-seed", type=int, metavar="N", help="of the first preview prompt (default: --seed)")
    paper = command.add_argument_group("the paper's ablations (Gal et al. 2022, section 5), all off by default")
    paper.add_argument(
        "--progressive", type=int, metavar="N", help="another of the word's vectors joins in every N steps"
    )
    paper.add_argument(
        "--per-image-words",
        type=float,
        metavar="P",
        help="with probability P a prompt also names a word of its picture alone, which is not kept (the paper: 0.25)",
    )
    paper.add_argument(
        "--coarse-weight", type=float, metavar="W", help="weight of the squared distance to the start in the loss"
    )
    add("--resume", action="store_true", help="go on with the interrupted run of this name")
    add("--overwrite", action="store_true", help="replace a finished word of this name")
    add("--out", type=Path, default=Path("."), help="folder for the results (default: this one)")
    command.set_defaults(run=run)


def run(a: argparse.Namespace) -> None:
    from ..hosts.diffusers.host import DiffusersHost

    if a.captions and a.templates:
        raise UserError("Give --captions or --templates, not both: a template with [filewords] uses the captions too.")
    templates = a.templates or {
        (True, False): "captions",
        (True, True): "style-captions",
        (False, True): "style",
    }.get((a.captions, a.style))
    config = TrainConfig.from_preset(
        a.preset or ("Style" if a.style else "Balanced"),
        name=a.name,
        init=a.init,
        steps=a.steps,
        learning_rate=number_or_schedule(a.lr),
        batch_size=a.batch_size,
        accumulation=a.accumulation,
        num_vectors=a.num_vectors,
        progressive_every=a.progressive,
        per_image_words=a.per_image_words,
        coarse_weight=a.coarse_weight,
        resolution=a.resolution,
        seed=a.seed,
        device=a.device,
        dtype=a.dtype,
        templates=templates,
        shuffle_tags=a.shuffle_tags,
        drop_tags=a.drop_tags,
        keep_tags=a.keep_tags,
        flip=a.flip,
        mask=a.mask,
        square=a.square,
        gradient_checkpointing=a.gradient_checkpointing,
        deterministic=a.deterministic,
        preview_prompts=tuple(dict.fromkeys(a.preview_prompt or ())) or None,
        preview_negative=a.preview_negative,
        preview_seed=a.preview_seed,
        preview_every=a.preview_every if a.preview_every is not None else (100 if a.preview_prompt else None),
    )
    target = a.out / f"{config.name}.safetensors"
    if target.exists() and not (a.resume or a.overwrite):
        raise UserError(f"'{target}' exists. Choose another --name, or give --resume to go on with it, or --overwrite.")
    repeats = with_repeats(a.images)
    pictures = [picture for folder in repeats for picture in find_pictures(folder)]
    host = DiffusersHost.load(a.model, config.device, config.dtype, a.prediction_type)
    learn(host, pictures, config, a.out, a.resume, repeats)


def learn(
    host: Host,
    pictures: Sequence[Path],
    config: TrainConfig,
    out: Path,
    resume: bool = False,
    repeats: Mapping[Path, int] = NO_REPEATS,
) -> Done:
    """Trains with a progress bar, a CSV, a loss plot and preview files; says what is kept when interrupted."""
    skipped: list[str] = []
    captions = Templates.load(config.templates).use_captions
    side = config.resolution or host.resolution
    read = read_pictures(pictures, side, skipped, captions, config.mask, config.square, repeats)
    dataset = encode_pictures(host, read, config.flip)
    for message in skipped:
        print(f"Warning: {message}", file=sys.stderr)
    print(
        f"Learning '{config.name}' from {len(dataset)} pictures of {shapes(dataset)} pixels: "
        f"{config.steps} steps of {config.effective_batch}."
    )
    log: StepLog | None = None
    bar = ProgressBar(config.steps)
    try:
        with closing(train_in_memory(host, dataset, config, out, resume)) as events:
            for event in events:
                match event:
                    case Step():
                        log = log or StepLog(out / f"{config.name}.csv", event.step - 1)
                        log.add(event)
                        bar.show(event)
                    case Preview():
                        number = config.preview_prompts.index(event.prompt)
                        event.image.save(out / f"{config.name}-step{event.step:05d}-{number}.png")
                    case Warning():
                        bar.say(f"Warning: {event.message}")
                    case Done():
                        finished = event
                    case Checkpoint():
                        pass
    except KeyboardInterrupt:
        bar.end()
        kept = f"Step {log.steps[-1].step}" if log and log.steps else "What was there before"
        print(
            f"{kept} is kept in {out / config.name}.safetensors; the same command with --resume goes on from there.",
            file=sys.stderr,
        )
        raise
    finally:
        bar.end()
        if log:
            log.close()
            leave_plot(log, out / f"{config.name}-loss.png", config.name)
    print(f"Learnt '{config.name}' in {finished.seconds:.0f} s: {finished.path}")
    return finished


def shapes(dataset: Dataset) -> str:
    """The pictures' sizes as people write them, width first, the commonest first."""
    counted = Counter(picture.size.target for picture in dataset.pictures)
    return ", ".join(f"{width} x {height}" for (height, width), _ in counted.most_common())


def leave_plot(log: StepLog, path: Path, title: str) -> None:
    """Draws the loss; a disk that is full by now must not hide why the run ended."""
    try:
        loss_plot(log.steps, title).save(path)
    except OSError as error:
        print(f"Warning: {path} could not be written ({error.strerror or error}).", file=sys.stderr)
