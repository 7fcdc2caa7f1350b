"""What has to be true after a failure, and after the run that follows it."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from ti_train.errors import UserError
from ti_train.formats import load_embedding
from ti_train.training.step_log import COLUMNS

from .runs import NAME, UNFORESEEN, Ended, Training, embedding_in

TIMES = ("seconds",)  # columns of the step log in which equal runs differ
DRAWN = f"{NAME}-loss.png"  # from the step log, whose numbers are rounded
LOG = f"{NAME}.csv"


def after_a_failure(ended: Ended, folder: Path, earlier: bytes | None, result: bytes, clean: bool) -> list[str]:
    """What is wrong right after a run failed.

    earlier: the embedding that was there before. result: of an undisturbed run. clean: nothing unfinished may be there.
    """
    wrong = []
    if ended.status == UNFORESEEN or "Traceback" in ended.said:
        wrong.append(f"an exception that is no message: {ended.said.splitlines()[-1]}")
    elif ended.status > 0 and not ended.said.splitlines()[-1].startswith("ti_train: "):
        wrong.append(f"status {ended.status} without a message: {ended.said[-200:]}")
    file = embedding_in(folder)
    found = file.read_bytes() if file.exists() else None
    if earlier is not None and found != earlier and not same_vectors(found, result):
        wrong.append("the earlier embedding was replaced by another one than the result")
    if found is not None:
        wrong += unreadable(file)
    if ended.status == 0 and not same_vectors(found, result):
        wrong.append("it says that all is well, but the embedding is not the result")
    return wrong + ([f"left behind: {name}" for name in unfinished(folder)] if clean else [])


def after_a_cut(folder: Path, training: Training, result: bytes) -> list[str]:
    """What is wrong right after a power cut: a file with a good name that is not whole, or the earlier one gone."""
    wrong = []
    for file in (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        try:
            if file.suffix in (".safetensors", ".resume"):
                with safe_open(file, framework="pt") as opened:
                    opened.metadata()
            elif file.suffix == ".png":
                Image.open(file).load()
        except (SafetensorError, OSError, SyntaxError) as error:
            wrong.append(f"{file.name} is not whole: {error}")
    file = embedding_in(folder)
    found = file.read_bytes() if file.exists() else None
    if training.earlier is not None and found != training.earlier and not same_vectors(found, result):
        wrong.append("neither the earlier embedding nor the result is there")
    return wrong


def same_vectors(found: bytes | None, result: bytes) -> bool:
    """Whether a file is the result, or will be with its picture, which is put into it last."""
    return found is not None and {k: v.tolist() for k, v in load(found).items()} == {
        k: v.tolist() for k, v in load(result).items()
    }


def after_all(ended: Ended, folder: Path, expected: Path, log: bool = True, shown: bool = True) -> list[str]:
    """What is different from an undisturbed run's folder, when the run has been continued to its end.

    log: whether the step log must have all steps, too. shown: whether the previews and copies must be there of a step
    that was saved when writing something of it failed: it is not trained again.
    """
    if ended.status:
        return [f"it cannot be continued: {ended.said.splitlines()[-1]}"]
    ours, theirs = contents(folder), contents(expected)
    shows = (lambda _: True) if shown else (lambda name: f"{NAME}-step" not in name)
    wrong = [f"missing: {name}" for name in sorted(theirs.keys() - ours.keys()) if shows(name)]
    wrong += [f"left behind: {name}" for name in sorted(ours.keys() - theirs.keys())]
    both = sorted(ours.keys() & theirs.keys() - {DRAWN, LOG})
    for name in both:
        if not shown and name.endswith(".safetensors"):
            same = same_vectors(ours[name], theirs[name])
        else:
            same = ours[name] == theirs[name] or (not shown and name.endswith(".preview.png"))
        wrong += [] if same else [f"not the same bits: {name}"]
    if log and LOG in ours and rows(folder / LOG) != rows(expected / LOG):
        wrong.append("not the same steps in the step log")
    return wrong


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unfinished(folder: Path) -> list[str]:
    return sorted(name for name in contents(folder) if Path(name).name.startswith("."))


def unreadable(file: Path) -> list[str]:
    try:
        load_embedding(file)
    except UserError as error:
        return [f"{file.name} is not readable: {error}"]
    return []


def rows(log: Path) -> list[list[str]]:
    """The step log without what differs between equal runs."""
    with log.open(newline="", encoding="utf-8") as file:
        return [[row[key] for key in COLUMNS if key not in TIMES] for row in csv.DictReader(file)]
