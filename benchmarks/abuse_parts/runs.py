"""The training that is abused: a short one of the command line, each time in a new child of this process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ti_train.__main__ import main
from ti_train.embedding import Embedding
from ti_train.formats import save_embedding
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.reproducible import EPOCH

NAME = "my-toy"
STEPS = 4
QUICK = (
    f"--steps {STEPS} --batch-size 1 --resolution 32 --evaluate-every 2 --checkpoint-every 1 --copy-every 2 "
    "--preview-every 2 --preview-steps 1 --device cpu --dtype float32"
)
REFUGE = re.compile(r"was saved to '(.+?)' instead")  # of the message of a full disk
UNFORESEEN = 70  # the exit status for an exception that is no message


@dataclass(frozen=True)
class Ended:
    """How a process ended. status: its exit status; negative: the signal that killed it."""

    status: int
    said: str


@dataclass(frozen=True)
class Training:
    """A short training into a folder.

    earlier: the embedding of its name that is there before; None: there is none. interrupted: the folder of a run that
    is resumed; None: it begins anew.
    """

    model: Path
    images: Path
    init: str
    host: DiffusersHost
    earlier: bytes | None = None
    interrupted: Path | None = None

    @classmethod
    def of(cls, model: Path, images: Path, init: str) -> Training:
        """Loads the model, once for all children."""
        torch.set_num_threads(1)  # a fork has only the thread that forked
        os.environ[EPOCH] = "86400"  # equal runs leave equal files
        return cls(model, images, init, DiffusersHost.load(model, "cpu", "float32"))

    def with_earlier(self, place: Path) -> Training:
        """The same where another embedding has its name. place: of that one's file."""
        save_embedding(Embedding(NAME, {key: torch.ones(1, width) for key, width in self.host.widths.items()}), place)
        return replace(self, earlier=place.read_bytes())

    def begun(self, folder: Path) -> Path:
        """The folder, with the earlier embedding or the interrupted run and nothing else."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if self.earlier is not None:
            embedding_in(folder).write_bytes(self.earlier)
        if self.interrupted is not None:
            shutil.copytree(self.interrupted, folder, dirs_exist_ok=True)
        return folder

    def run(self, folder: Path, before: Callable[[], object] = lambda: None, seconds: float | None = None) -> Ended:
        """Trains in a child, or resumes where there is something to resume.

        before: is called in the child. seconds: after which it is killed.
        """
        resumes = (folder / f"{NAME}.resume").is_file()
        more = ["--resume"] if resumes else ["--overwrite"] if embedding_in(folder).exists() else []
        given = ["--model", self.model, "--images", self.images, "--init", self.init, "--name", NAME, "--out", folder]
        command = ["train", *map(str, given), *QUICK.split(), "--preview-prompt", "a *", *more]
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if not child:
                self._child(command, before, said.fileno())
            if seconds is not None:
                kill_after(child, seconds)
            _, status = os.waitpid(child, 0)
            said.seek(0)
            return Ended(os.waitstatus_to_exitcode(status), said.read().decode(errors="replace"))

    def _child(self, command: list[str], before: Callable[[], object], said: int) -> None:
        status = UNFORESEEN
        try:
            for stream in (1, 2):
                os.dup2(said, stream)
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # in order with the messages
            DiffusersHost.load = lambda *_: self.host  # type: ignore[method-assign, assignment]
            before()
            status = main(command)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


@dataclass(frozen=True)
class InFolder:
    """A training into one folder."""

    training: Training
    folder: Path

    @property
    def earlier(self) -> bytes | None:
        return self.training.earlier

    def begun(self) -> None:
        self.training.begun(self.folder)

    def clock(self) -> float:
        return time.monotonic()

    def run(self, seconds: float | None = None) -> Ended:
        return self.training.run(self.folder, seconds=seconds)

    def close(self) -> None:
        """No process is left."""


def kill_after(child: int, seconds: float) -> None:
    """Kills a child, unless it ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)


def embedding_in(folder: Path) -> Path:
    return folder / f"{NAME}.safetensors"


def put_back(said: str, folder: Path) -> None:
    """Does what the message of a full disk asks for: copies the files back that were saved elsewhere."""
    for refuge in map(Path, REFUGE.findall(said)):
        shutil.copytree(refuge, folder, dirs_exist_ok=True)
        shutil.rmtree(refuge)
