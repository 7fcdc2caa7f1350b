"""Kills at random moments of a training, which is continued each time until it is complete."""

from __future__ import annotations

import random
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import verdict
from .runs import NAME, Ended, embedding_in


class Killable(Protocol):
    """A training into a folder, in a process that can be killed: the command line's, or a server's."""

    @property
    def folder(self) -> Path: ...

    @property
    def earlier(self) -> bytes | None:
        """The embedding that has the name before, if one has."""

    def begun(self) -> object:
        """Empties the folder."""

    def clock(self) -> float:
        """Seconds of the process that trains: its processor time, where a busy machine would stretch the others."""

    def run(self, seconds: float | None = None) -> Ended:
        """Trains, or resumes where there is something to resume. seconds: by its clock, after which it is killed."""

    def close(self) -> None: ...


@dataclass
class Kills:
    """kills: that hit a process. resumable: after how many of them there was a step to resume from.

    trainings: that were completed all the same.
    """

    kills: int = 0
    resumable: int = 0
    trainings: int = 0
    wrong: list[str] = field(default_factory=list)


def killed(training: Killable, expected: Path, times: int, seed: int) -> Kills:
    """Trains again and again until `times` kills have hit, each at a moment of a whole run's time.

    expected: the folder for the files of an undisturbed run.
    """
    folder, draw, found = training.folder, random.Random(seed), Kills()
    training.begun()
    began = training.clock()
    whole = training.run()
    if whole.status:
        raise SystemExit(f"The run does not even work undisturbed:\n{whole.said}")
    duration, result = training.clock() - began, embedding_in(folder).read_bytes()
    shutil.copytree(folder, expected)
    training.begun()
    while found.kills < times:
        ended = training.run(draw.uniform(0, duration))
        where = f"seed {seed}, kill {found.kills + 1}: "
        if ended.status == -signal.SIGKILL:
            found.kills += 1
            found.resumable += (folder / f"{NAME}.resume").is_file()
            wrong = verdict.after_a_failure(ended, folder, training.earlier, result, clean=False)
        else:
            found.trainings += 1
            wrong = verdict.after_all(ended, folder, expected)
            if wrong:  # to be looked at; gone with a temporary folder
                shutil.copytree(folder, expected.with_name(f"wrong after kill {found.kills}"))
            training.begun()
        found.wrong += [where + each for each in wrong]
    wrong = verdict.after_all(training.run(), folder, expected)
    found.trainings += 1
    found.wrong += [f"seed {seed}, at the end: {each}" for each in wrong]
    return found
