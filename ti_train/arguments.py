"""The command line's arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from . import __version__
from .config import PRESETS, TrainConfig
from .masks import Source
from .prompts import BUILT_IN

MODEL = "a Stable Diffusion 1, 2 or XL model: a .safetensors checkpoint, or a folder in diffusers' layout"
PREDICTION_TYPES = ("epsilon", "v_prediction")
PREDICTION = "what the model predicts, where it does not say so itself or is wrong (default: what it says)"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m ti_train",
        description="Teaches a text-to-image model a new word from 3 to 5 pictures (textual inversion). "
        "The model itself stays as it is.",
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="{train,generate,inspect,demo}")
    _add_train(commands)
    _add_generate(commands)
    _add_inspect(commands)
    demo = commands.add_parser("demo", help="learn a word on the model that comes along, in about a minute")
    demo.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for the results (default: %(default)s)"
    )
    demo.add_argument("--concept", default="teal-heart", help="a folder of demo/concepts (default: %(default)s)")
    return top


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    balanced = TrainConfig(name="x", init="x")
    command = commands.add_parser("train", help="learn a word from a folder of pictures")
    add = command.add_argument
    add("--model", type=Path, required=True, help=MODEL)
    add("--prediction-type", choices=PREDICTION_TYPES, help=PREDICTION)
    add("--images", type=Path, required=True, help="folder with the training pictures; 3 to 5 are best")
    add("--name", required=True, help="the word's name, which is its file's name too, such as my-cat")
    add(
        "--init",
        required=True,
        help='what the pictures show in a word or two ("cat"), or a .safetensors to go on from',
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
        help="side in pixels that pictures are cropped and scaled to (default: the model's own)",
    )
    add("--seed", type=int, help="another seed gives another, equally good word (default: 0)")
    add("--device", default="auto", help="auto, cuda, mps, xpu or cpu (default: %(default)s)")
    add(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="(default: what is fastest here)",
    )
    add("--templates", help=f"{', '.join(BUILT_IN)}, or a text file with a template a line (default: object)")
    add("--captions", action="store_true", help="use the .txt file beside each picture in its prompts")
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
        "--preview-prompt",
        action="append",
        metavar="PROMPT",
        help="sampled while training; * is the word (repeatable)",
    )
    add("--preview-every", type=int, metavar="N", help="steps between previews (default: 0, none)")
    add("--resume", action="store_true", help="go on with the interrupted run of this name")
    add("--overwrite", action="store_true", help="replace a finished word of this name")
    add("--out", type=Path, default=Path("."), help="folder for the results (default: this one)")


def _add_generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("generate", help="sample pictures with learnt words")
    add = command.add_argument
    add("--model", type=Path, help=MODEL)
    add("--prediction-type", choices=PREDICTION_TYPES, help=PREDICTION)
    add("--demo", action="store_true", help="the model and the words that come along")
    add("--embedding", type=Path, action="append", default=[], help="a learnt word (repeatable)")
    add("--prompt", required=True, help="a word is written <its-file-name>, and * when it is the only one")
    add("--negative", default="", help="what the pictures should not show")
    add("--number", type=int, default=4, help="pictures (default: %(default)s)")
    add("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    add("--guidance", type=float, default=5.0, help="classifier-free guidance (default: %(default)s)")
    add("--resolution", type=int, default=0, help="side in pixels (default: the model's own)")
    add("--seed", type=int, default=0, help="of the first picture (default: %(default)s)")
    add("--device", default="auto", help="auto, cuda, mps, xpu or cpu (default: %(default)s)")
    add("--out", type=Path, default=Path("."), help="folder for the pictures (default: this one)")


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("inspect", help="say what an embedding file holds")
    command.add_argument("file", type=Path, help="a .safetensors embedding")
    command.add_argument("--model", type=Path, help="also compare it with this model's vocabulary")
    command.add_argument("--json", action="store_true", help="print JSON")
