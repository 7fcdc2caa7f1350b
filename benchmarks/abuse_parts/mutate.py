"""Mutated files of every kind that a user hands over: a message for each at worst, within limits, and no file left."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ti_train.data.dataset import find_pictures, read_pictures
from ti_train.errors import UserError
from ti_train.formats import read_embeddings
from ti_train.hosts.diffusers.checkpoint_file import Checkpoint
from ti_train.prompts import Templates
from ti_train.text import Remarks, printable
from ti_train.training.checkpoint import RunFiles
from ti_train.training.step_log import check_step_log, read_steps

from . import samples
from .mutations import mutation

SLOWEST, MOST_MEMORY = 10.0, 2**30  # seconds for a file; bytes for all files of a kind, beyond what was there before


@dataclass(frozen=True)
class Kind:
    """Files of a kind. valid: by their names. read: as a training reads them. Raises UserError."""

    name: str
    valid: Sequence[tuple[str, bytes]]
    read: Callable[[Path], object]


@dataclass
class Mutated:
    read: int = 0
    refused: int = 0
    slowest: float = 0.0  # seconds
    memory: int = 0  # bytes that the process has grown by
    wrong: list[str] = field(default_factory=list)


def kinds(folder: Path) -> list[Kind]:
    """folder: for what is drawn, and read beside a mutated file."""
    image = samples.image("PNG")
    (folder / "a.png").write_bytes(image)
    tables = [("metadata.jsonl", samples.jsonl()), *(("metadata.csv", table) for table in samples.tables())]
    return [
        Kind("embeddings", samples.embeddings(), read_embeddings),
        Kind("checkpoints", [("x.safetensors", samples.checkpoint())], lambda path: Checkpoint.read(path).prediction),
        Kind("images", [(f"x.{kind.lower()}", samples.image(kind)) for kind in samples.IMAGES], pictures_beside),
        Kind("masks", [("a-mask.png", samples.image(kind, "L")) for kind in ("PNG", "TIFF", "BMP")], pictures_beside),
        Kind("captions", [("a.txt", text) for text in samples.texts("a red toy, naïve 猫 😀\n")], pictures_beside),
        Kind("tables of captions", tables, pictures_beside),
        Kind(
            "templates", [("x.txt", text) for text in samples.texts("a [name]\nthe [name], [filewords]\n")], templates
        ),
        Kind("resume files", [("cat.resume", samples.state(folder))], resumed),
        Kind("step logs", [("x.csv", samples.log(folder))], logged),
    ]


def pictures_beside(path: Path) -> None:
    """As a training reads a folder with this file, whose problems are remarks."""
    remarks = Remarks()
    captions = path.suffix in (".txt", ".jsonl", ".csv")  # else a missing one would be a remark on the image
    list(read_pictures(find_pictures(path.parent), 32, remarks, captions=captions))
    assert remarks == [*map(printable, remarks)], f"a remark with control characters: {remarks}"
    if any(path.name in remark for remark in remarks):
        raise UserError(" ".join(remarks))


def templates(path: Path) -> None:
    Templates.load(str(path))


def resumed(path: Path) -> None:
    files = RunFiles(path.parent, path.stem, samples.IDENTITY)
    files.interrupted()
    state = files.load()
    state.course.kept(state.step)


def logged(path: Path) -> None:
    check_step_log(path)
    read_steps(path)


def mutate(kind: Kind, folder: Path, count: int, seed: int) -> Mutated:
    """Reads mutated files of a kind, one after another, in a folder that has nothing else but what it reads beside."""
    found, beside = Mutated(), {path.name: path.read_bytes() for path in folder.iterdir()}
    started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(count):
        draw = random.Random(f"{kind.name} {seed} {case}")
        name, valid = kind.valid[case % len(kind.valid)]
        path = folder / name
        path.write_bytes(mutation(valid, draw))
        began = time.perf_counter()
        try:
            kind.read(path)
            found.read += 1
        except UserError as error:
            found.refused += 1
            if error.args != (*map(printable, error.args),):
                found.wrong.append(f"{kind.name} {case}: a message with control characters: {error!r}")
        except Exception as error:
            found.wrong.append(f"{kind.name} {case} ({name}): {type(error).__name__}: {error}"[:300])
        found.slowest = max(found.slowest, time.perf_counter() - began)
        path.unlink()
        if path.name in beside:
            path.write_bytes(beside[path.name])
        if left := {path.name for path in folder.iterdir()} - beside.keys():
            found.wrong.append(f"{kind.name} {case}: left {left}")
            break
    found.memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started) * 1024
    if found.slowest > SLOWEST or found.memory > MOST_MEMORY:
        found.wrong.append(f"{kind.name}: {found.slowest:.1f} s for a file, {found.memory >> 20} MiB more memory")
    return found


def line(kind: Kind, found: Mutated) -> str:
    figures = (found.read, found.refused, len(found.wrong), f"{found.slowest:.2f} s", f"{found.memory >> 20} MiB")
    return f"| {kind.name} | " + " | ".join(map(str, figures)) + " |"
