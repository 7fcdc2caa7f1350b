"""Kills at random moments of a training, which is continued each time until it is complete."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import verdict
from .runs import Training, embedding_in


@dataclass
class Kills:
    """kills: that hit a process. trainings: that were completed all the same."""

    kills: int = 0
    trainings: int = 0
    wrong: list[str] = field(default_factory=list)


def killed(training: Training, work: Path, times: int, seed: int) -> Kills:
    """Trains again and again until `times` kills have hit, each at a moment of a whole run's time."""
    expected, folder, draw, found = training.begun(work / "expected"), work / "run", random.Random(seed), Kills()
    began = time.monotonic()
    if training.run(expected).status:
        raise SystemExit("The run does not even work undisturbed.")
    duration, result = time.monotonic() - began, embedding_in(expected).read_bytes()
    training.begun(folder)
    while found.kills < times:
        ended = training.run(folder, seconds=draw.uniform(0, duration))
        where = f"seed {seed}, kill {found.kills + 1}: "
        if ended.status == -signal.SIGKILL:
            found.kills += 1
            wrong = verdict.after_a_failure(ended, folder, training, result, clean=False)
        else:
            found.trainings += 1
            wrong = verdict.after_all(ended, folder, expected)
            training.begun(folder)
        found.wrong += [where + each for each in wrong]
    wrong = verdict.after_all(training.run(folder), folder, expected)
    found.trainings += 1
    found.wrong += [f"seed {seed}, at the end: {each}" for each in wrong]
    return found
