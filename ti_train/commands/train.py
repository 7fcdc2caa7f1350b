"""`train`: learns a word from folders of pictures."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from ..data.dataset import NO_REPEATS, Dataset, encode_pictures, find_pictures, read_pictures, with_repeats
from ..drawing.loss_plot import loss_plot
from ..errors import UserError
from ..events import Checkpoint, Done, Preview, Step, Warning
from ..host import Host
from ..prompts import Templates
from ..training.config import PRESETS, PRESETS_HELP, TrainConfig
from ..training.learning_rate import number_or_schedule
from ..training.out_of_memory import train_in_memory
from ..training.step_log import StepLog
from .model import MODEL, PREDICTION, PREDICTION_TYPES
from .option_arguments import add_options, options_given
from .progress import ProgressBar


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("train", help="learn a word from a folder of pictures")
    add = command.add_argument
    add("--model", type=Path, required=True, help=MODEL)
    add("--prediction-type", choices=PREDICTION_TYPES, help=PREDICTION)
    add(
        "--images",
        action="append",
        required=True,
        metavar="FOLDER",
        help="folder with the training images; 3 to 5 are best (repeatable; FOLDER:3 repeats its images three times)",
    )
    add("--preset", choices=PRESETS, help=f"{PRESETS_HELP} (default: Balanced, with --style Style)")
    add("--style", action="store_true", help="the same as --preset Style, with --captions --templates style-captions")
    add(
        "--captions",
        action="store_true",
        help="use the caption of each image in its prompts: the .txt file beside it, or metadata.jsonl or .csv",
    )
    add("--resume", action="store_true", help="continue the interrupted run of this name")
    add("--overwrite", action="store_true", help="replace a finished embedding of this name")
    add("--out", type=Path, default=Path("."), help="folder for the results (default: this one)")
    add_options(command)
    command.set_defaults(run=run)


def run(a: argparse.Namespace) -> None:
    from ..hosts.diffusers.host import DiffusersHost

    config = config_given(a)
    target = a.out / f"{config.name}.safetensors"
    if target.exists() and not (a.resume or a.overwrite):
        raise UserError(f"'{target}' exists. Choose another --name, or give --resume to go on with it, or --overwrite.")
    repeats = with_repeats(a.images)
    pictures = [picture for folder in repeats for picture in find_pictures(folder)]
    host = DiffusersHost.load(a.model, config.device, config.dtype, a.prediction_type)
    learn(host, pictures, config, a.out, a.resume, repeats)


def config_given(a: argparse.Namespace) -> TrainConfig:
    """The settings of a run. Raises UserError."""
    given = options_given(a)
    if a.captions and given["templates"]:
        raise UserError("Give --captions or --templates, not both: a template with [filewords] uses the captions too.")
    by_switch = {(True, False): "captions", (True, True): "style-captions", (False, True): "style"}
    prompts = tuple(dict.fromkeys(given["preview_prompts"] or ())) or None
    read = {
        "learning_rate": number_or_schedule(given["learning_rate"]),
        "templates": given["templates"] or by_switch.get((a.captions, a.style)),
        "preview_prompts": prompts,
        "preview_every": 100 if prompts and given["preview_every"] is None else given["preview_every"],
    }
    return TrainConfig.from_preset(a.preset or ("Style" if a.style else "Balanced"), **given | read)


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
