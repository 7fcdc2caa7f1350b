"""Mutated files of every kind that a user hands over: a message for each at worst, within limits, and nothing done.

What once failed is in tests/corpus, a folder for each kind, and is read first.
"""

from __future__ import annotations

import random
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ti_train.data.dataset import find_pictures, read_pictures
from ti_train.data.image_files import DAMAGED, MAX_PIXELS, read_thumbnail
from ti_train.errors import UserError
from ti_train.formats import read_embeddings
from ti_train.hosts.diffusers.checkpoint_file import Checkpoint
from ti_train.prompts import Templates
from ti_train.text import Remarks, printable
from ti_train.training.checkpoint import RunFiles
from ti_train.training.step_log import check_step_log, read_steps

from . import samples
from .mutations import mutation
from .watch import watching

CORPUS = Path(__file__).resolve().parents[2] / "tests" / "corpus"
SLOWEST = 10.0  # seconds for a file
MOST_MEMORY = 12 * MAX_PIXELS  # bytes for all files of a kind, beyond what was before: the largest image takes that
MOST_TRIES = 500  # to make a file smaller that still fails


@dataclass(frozen=True)
class Kind:
    """Files of a kind. valid: by their names. read: as a training reads them. Raises UserError."""

    name: str
    valid: Sequence[tuple[str, bytes]]
    read: Callable[[Path], object]

    def corpus(self) -> list[Path]:
        return sorted((CORPUS / self.name.replace(" ", "-")).glob("*"))

    def name_of(self, file: Path) -> str:
        """The name that a file of the corpus has in a folder that is read."""
        first = self.valid[0][0]
        same = (name for name, _ in self.valid if name.endswith(file.suffix))
        return next(same, Path(first).stem + file.suffix)


@dataclass
class Mutated:
    read: int = 0
    refused: int = 0
    slowest: float = 0.0  # seconds
    memory: int = 0  # bytes that the process has grown by
    wrong: list[str] = field(default_factory=list)


def kinds(folder: Path) -> list[Kind]:
    """folder: for what is drawn, and read beside a mutated file."""
    (folder / "a.png").write_bytes(samples.image("PNG"))
    images = samples.images()
    captions = [("a.txt", text) for text in samples.texts("a red toy, naïve 猫 😀\n")]
    templates = [("x.txt", text) for text in samples.texts("a [name]\nthe [name], [filewords] é\n")]
    return [
        Kind("embeddings", samples.embeddings(), read_embeddings),
        Kind("checkpoints", [("x.safetensors", samples.checkpoint())], lambda path: Checkpoint.read(path).prediction),
        Kind("images", [(f"x{ending}", data) for ending, data in images], shown_and_trained),
        Kind("masks", [(f"a-mask{ending}", data) for ending, data in images], trained),
        Kind("captions", captions, trained),
        Kind("tables of captions", samples.tables(), trained),
        Kind("templates", templates, lambda path: Templates.load(str(path))),
        Kind("resume files", [("cat.resume", samples.state(folder))], resumed),
        Kind("step logs", [("x.csv", samples.log(folder))], logged),
    ]


def trained(path: Path) -> None:
    """As a training reads a folder with this file, whose problems are remarks."""
    remarks = Remarks()
    captions = path.suffix in (".txt", ".jsonl", ".csv")  # else a missing one would be a remark on the image
    list(read_pictures(find_pictures(path.parent), 32, remarks, captions=captions))
    assert remarks == [*map(printable, remarks)], f"a remark with control characters: {remarks}"
    if any(path.name in remark for remark in remarks):
        raise UserError(" ".join(remarks))


def shown_and_trained(path: Path) -> None:
    with suppress(*DAMAGED):
        read_thumbnail(path, 16)
    trained(path)


def resumed(path: Path) -> None:
    files = RunFiles(path.parent, path.stem, samples.IDENTITY)
    files.interrupted()
    state = files.load()
    state.course.kept(state.step)


def logged(path: Path) -> None:
    check_step_log(path)
    read_steps(path)


def problem(kind: Kind, path: Path, data: bytes) -> tuple[bool, str]:
    """Whether a file with these bytes is read, and what is wrong with how; "" if nothing is.

    The folder has nothing else but what is read beside the file, and afterwards what it had.
    """
    before = path.read_bytes() if path.exists() else None
    beside = {each.name for each in path.parent.iterdir()} - {path.name}
    path.write_bytes(data)
    read, wrong = False, ""
    with watching() as done:
        try:
            kind.read(path)
            read = True
        except UserError as error:
            if error.args != (*map(printable, error.args),):
                wrong = "a message with control characters"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"[:300]
    path.unlink(missing_ok=True)
    left = {each.name for each in path.parent.iterdir()} - beside
    for name in left:
        (path.parent / name).unlink()
    if before is not None:
        path.write_bytes(before)
    return read, wrong or (f"did {done}" if done else f"left {left}" if left else "")


def mutate(kind: Kind, folder: Path, count: int, seed: int, save: Path) -> Mutated:
    """Reads the corpus and mutated files of a kind, one after another, in a folder with what is read beside them.

    save: the folder for inputs that fail.
    """
    found = Mutated()
    old = [(kind.name_of(file), file.read_bytes()) for file in kind.corpus()]
    pool = [*kind.valid, *old]
    warnings.filterwarnings("ignore", module="PIL")  # of damaged files
    started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(-len(old), count):
        draw = random.Random(f"{kind.name} {seed} {case}")
        name, data = pool[case % len(pool)]
        data = data if case < 0 else mutation(data, draw)
        began = time.process_time()
        read, wrong = problem(kind, folder / name, data)
        found.slowest = max(found.slowest, time.process_time() - began)
        found.read, found.refused = found.read + read, found.refused + (not read and not wrong)
        if wrong:
            file = saved(kind, folder / name, data, save / kind.name.replace(" ", "-"), f"{seed}-{case}")
            found.wrong.append(f"{kind.name} {case} ({file}): {wrong}")
    found.memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started) * 1024
    if found.slowest > SLOWEST or found.memory > MOST_MEMORY:
        found.wrong.append(f"{kind.name}: {found.slowest:.1f} s for a file, {found.memory >> 20} MiB more memory")
    return found


def saved(kind: Kind, path: Path, data: bytes, folder: Path, name: str) -> Path:
    """Writes what fails into a folder, after leaving out what it fails without."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}{path.suffix}"
    file.write_bytes(smaller(data, lambda less: bool(problem(kind, path, less)[1])))
    return file


def smaller(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """The bytes without halves, quarters ... that they fail without."""
    tries, size = 0, len(data) // 2
    while size and tries < MOST_TRIES:
        place = 0
        while place < len(data) and tries < MOST_TRIES:
            less, tries = data[:place] + data[place + size :], tries + 1
            if fails(less):
                data = less
            else:
                place += size
        size //= 2
    return data


def line(kind: Kind, found: Mutated) -> str:
    figures = (found.read, found.refused, len(found.wrong), f"{found.slowest:.2f} s", f"{found.memory >> 20} MiB")
    return f"| {kind.name} | " + " | ".join(map(str, figures)) + " |"
