"""The command line's arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from . import __version__
from .clip import PAPERS_MODEL
from .config import PRESETS, TrainConfig
from .embedding import MERGES
from .formats import ENDINGS, PRECISIONS
from .masks import Source
from .prompts import BUILT_IN

SECOND = "the second file of Stable Diffusion XL in diffusers' layout"
WORD = "which word, where a file holds several"
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
    commands = top.add_subparsers(
        dest="command", required=True, metavar="{train,generate,evaluate,inspect,convert,merge,demo}"
    )
    _add_train(commands)
    _add_generate(commands)
    _add_evaluate(commands)
    _add_inspect(commands)
    _add_convert(commands)
    _add_merge(commands)
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
    add("--device", default="auto", help="auto, cuda, mps, xpu or cpu (default: %(default)s)")
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
        "--preview-prompt",
        action="append",
        metavar="PROMPT",
        help="sampled while training; * is the word (repeatable)",
    )
    add("--preview-every", type=int, metavar="N", help="steps between previews (default: 0, none)")
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


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("evaluate", help="measure likeness and editability as the paper does")
    add = command.add_argument
    add("--model", type=Path, help=MODEL)
    add("--prediction-type", choices=PREDICTION_TYPES, help=PREDICTION)
    add("--demo", action="store_true", help="the model that comes along; its drawn attributes measure in place of CLIP")
    add("--embedding", type=Path, action="append", required=True, help="a learnt word (repeatable, to compare)")
    add("--images", type=Path, required=True, help="folder with the training pictures")
    add("--init", default="", help="the initial word, a reference (default: what the embedding files say)")
    add("--style", action="store_true", help="the word is a style")
    add("--prompts", type=Path, help="text file with an edit prompt a line, * being the word (default: the paper's)")
    add("--number", type=int, default=64, help="samples a prompt (default: %(default)s)")
    add("--steps", type=int, default=50, help="DDIM steps (default: %(default)s)")
    add("--guidance", type=float, default=5.0, help="classifier-free guidance (default: %(default)s)")
    add("--resolution", type=int, default=0, help="side in pixels (default: the model's own)")
    add("--seed", type=int, default=0, help="of the first sample (default: %(default)s)")
    add("--batch-size", type=int, default=4, help="samples made at once (default: %(default)s)")
    add("--device", default="auto", help="auto, cuda, mps, xpu or cpu (default: %(default)s)")
    add("--clip-model", default=PAPERS_MODEL, help="a model of open_clip (default: %(default)s, the paper's)")
    add("--clip-weights", default="", help="file with its weights, or the name that open_clip has for them")
    add("--out", type=Path, default=Path("evaluation"), help="folder for samples and results (default: %(default)s)")


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("inspect", help="say what an embedding file holds")
    command.add_argument("file", type=Path, help="an embedding of any layout: .safetensors, .pt, .bin, .png, .webp")
    command.add_argument("second", type=Path, nargs="?", help=SECOND)
    command.add_argument("--word", help=WORD)
    command.add_argument("--model", type=Path, help="also compare it with this model's vocabulary")
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "convert",
        help="write an embedding in the layout of another tool",
        usage="python -m ti_train convert IN [IN2] OUT [options]",
    )
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help=f"IN: any embedding. IN2: {SECOND}")
    command.add_argument("--word", help=WORD)
    _add_export(command)


def _add_merge(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "merge", help="make one word of several", usage="python -m ti_train merge IN IN [IN ...] OUT [options]"
    )
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="embeddings, and the file to write")
    command.add_argument(
        "--how",
        choices=MERGES,
        default=MERGES[0],
        help="concatenate the vectors, add them up, or go along the arc from one word to the other "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--weights",
        type=numbers,
        metavar="W,W",
        help="a factor for each word; of interpolate only their ratio counts (default: all 1)",
    )
    _add_export(command)


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _add_export(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--to", choices=ENDINGS, help="layout (default: what OUT's ending says: .safetensors, .pt a1111, .png)")
    add("--dtype", choices=PRECISIONS, default="fp32", help="of the values written (default: %(default)s)")
    add("--norm", type=float, default=0.0, help="length that every vector is brought to (default: 0, as they are)")
    add("--strength", type=float, default=1.0, help="factor of the vectors (default: %(default)s)")
    add("--name", help="the word's name inside the file (default: OUT's own)")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
