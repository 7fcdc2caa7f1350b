"""`train`: trains an embedding on folders of images."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from ..data.dataset import Dataset, find_pictures, with_repeats
from ..errors import UserError
from ..events import Done, Step, Warning
from ..host import Host
from ..names import file_names, with_paths
from ..text import Remarks
from ..training.checkpoint import RunFiles, name_in
from ..training.config import PRESETS, PRESETS_HELP, TrainConfig, with_preview_interval
from ..training.learning_rate import number_or_schedule
from ..training.session import Records, Session, load_dataset
from ..training.step_log import check_step_log
from .model import MODEL, PREDICTION, PREDICTION_TYPES
from .option_arguments import add_options, options_given, without_effect
from .progress import TrainingBar

TO_CONTINUE = "with the same command and --resume"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("train", help="train an embedding on a folder of images")
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

    if a.resume and a.overwrite:
        raise UserError("Use --resume to continue the run or --overwrite to train it anew, not both.")
    config = config_given(a)
    for remark in without_effect(config):
        print(f"Warning: {remark}", file=sys.stderr)
    check_name_is_free(a, config.name)
    check_step_log(Records.beside_embedding(a.out, config.name).log)
    folders = with_repeats(a.images)
    for folder in folders:
        find_pictures(folder)  # before the model is loaded
    host = DiffusersHost.load(a.model, config.device, config.dtype, a.prediction_type)
    train_with_progress(host, folders, config, a.out, a.resume, a.overwrite)


def check_name_is_free(a: argparse.Namespace, name: str) -> None:
    """Raises UserError if there is an embedding or an interrupted run of this name, and neither option is given."""
    files = RunFiles(a.out, name, {})
    interrupted = files.interrupted()
    if a.resume or a.overwrite or not (files.embedding.exists() or interrupted):
        return
    run = f"its run was interrupted after step {interrupted.step}: use --resume to continue it" if interrupted else ""
    raise UserError(
        f"'{files.embedding if files.embedding.exists() else files.state}' exists"
        f"{'; ' + run if run else ''}. Choose another --name, or use --overwrite to train it anew."
    )


def config_given(a: argparse.Namespace) -> TrainConfig:
    """The settings from the arguments. Raises UserError."""
    given = options_given(a)
    if a.captions and given["templates"]:
        raise UserError("Use --captions or --templates, not both: a template with [filewords] uses the captions too.")
    preset = a.preset or ("Style" if a.style else "Balanced")
    by_switch = {(True, False): "captions", (True, True): "style-captions", (False, True): "style"}
    prompts = tuple(dict.fromkeys(given["preview_prompts"] or ())) or None
    read = {
        "name": name_in(a.out, given["name"]) if a.resume else given["name"],
        "init": initial(given["init"], a.out),
        "learning_rate": number_or_schedule(given["learning_rate"]),
        "templates": given["templates"] or by_switch.get((a.captions, a.style or preset == "Style")),
        "preview_prompts": prompts,
    }
    return TrainConfig.from_preset(preset, **with_preview_interval(given | read))


def initial(text: str, out: Path) -> str:
    """An initial text with the paths of the embedding files that it means, here or in --out."""

    def path_of(name: str) -> str:
        files = [folder / each for each in file_names(name) for folder in (Path(), out)]
        return str(next((file for file in files if file.is_file()), files[0]))

    return with_paths(text, path_of)


def train_with_progress(
    host: Host, folders: Mapping[Path, int], config: TrainConfig, out: Path, resume: bool = False, replaces: bool = True
) -> Done:
    """Trains with a progress bar, a step log, a loss plot and previews. Raises UserError and KeyboardInterrupt."""
    skipped = Remarks()
    dataset = load_dataset(host, folders, config, skipped)
    for message in skipped:
        print(f"Warning: {message}", file=sys.stderr)
    print(
        f"Training '{config.name}' on {len(dataset)} images of {shapes(dataset)} pixels: "
        f"{config.steps} steps with batch size {config.effective_batch}."
    )
    session = Session(config, out, Records.beside_embedding(out, config.name))
    bar = TrainingBar(session)
    try:
        with closing(session.train(host, dataset, resume, replaces=replaces)) as events:
            for event in events:
                match event:
                    case Step():
                        bar.show(event)
                    case Warning():
                        bar.write(f"Warning: {event.message}")
                    case Done():
                        finished = event
    except BaseException as error:
        bar.end()
        if session.trained or isinstance(error, KeyboardInterrupt):
            print(session.saved(TO_CONTINUE), file=sys.stderr)
        raise
    finally:
        bar.end()
    print(f"Trained '{config.name}' in {finished.seconds:.0f} s: {finished.path}. {finished.why}")
    return finished


def shapes(dataset: Dataset) -> str:
    """The images' sizes as width x height, most common first."""
    counted = Counter(picture.size.target for picture in dataset.pictures)
    return ", ".join(f"{width} x {height}" for (height, width), _ in counted.most_common())
