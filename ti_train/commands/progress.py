"""The command line's progress bars."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from time import monotonic
from typing import TextIO

from tqdm import tqdm

from ..evaluation.evaluate import Sampled
from ..evaluation.scores import Score
from ..events import Step
from ..training.pace import Pace
from ..training.session import Session

LOOKS = {"ascii": ".#", "bar_format": "[{bar:20}] {n_fmt}/{total_fmt}  {desc}"}


class Bar:
    """A tqdm bar on a terminal; a line every tenth of the run if the output is a file."""

    def __init__(self, pace: Pace, unit: str, stream: TextIO | None = None) -> None:
        self.pace, self.unit, self.stream = pace, unit, stream or sys.stderr
        self.tenth = -1  # the last one that was printed
        self.tqdm: tqdm | None = None
        if self.stream.isatty():
            self.tqdm = tqdm(total=pace.total, file=self.stream, dynamic_ncols=True, **LOOKS)

    def draw(self, done: int, note: str = "") -> None:
        note += self.speed()
        if self.tqdm is not None:
            self.tqdm.set_description_str(note, refresh=False)
            self.tqdm.update(done - self.tqdm.n)
        elif done == self.pace.total or done * 10 // self.pace.total > self.tenth:
            self.tenth = done * 10 // self.pace.total
            self.write(tqdm.format_meter(done, self.pace.total, 0, prefix=note, **LOOKS))

    def speed(self) -> str:
        rate, left = self.pace.rate, self.pace.seconds_left
        return "starting" if rate is None or left is None else f"{rate:.1f} {self.unit}/s  {left:.0f} s left"

    def write(self, message: str) -> None:
        tqdm.write(message, file=self.stream)

    def end(self) -> None:
        if self.tqdm is not None:
            self.tqdm.close()


class TrainingBar(Bar):
    """The bar of a training session."""

    def __init__(self, session: Session, stream: TextIO | None = None) -> None:
        super().__init__(session.pace, "steps", stream)
        self.session = session

    def show(self, step: Step) -> None:
        loss = f"loss {step.loss:#.4g}  " if step.loss is not None else "untrained  "
        measured = self.session.validation_loss
        self.draw(step.step, loss + (f"validation {measured:#.4g}  " if measured is not None else ""))


class StatusLine:
    """One line that is rewritten on a terminal; in a file, a line a minute."""

    EVERY = 60.0  # seconds

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._shown, self._at = "", -math.inf

    def show(self, line: str) -> None:
        if line == self._shown:
            return
        if self.stream.isatty():
            self.stream.write(f"\r{line.ljust(len(self._shown))}")
        elif monotonic() - self._at >= self.EVERY:
            self.stream.write(f"{line}\n")
            self._at = monotonic()
        else:
            return
        self._shown = line
        self.stream.flush()

    def end(self, line: str) -> None:
        self.stream.write(f"\r{line.ljust(len(self._shown))}\n" if self.stream.isatty() else f"{line}\n")


def scores_of(events: Iterable[Sampled | Score]) -> list[Score]:
    """Runs an evaluation with a progress bar, which is closed even if the evaluation fails."""
    scores: list[Score] = []
    bar: Bar | None = None
    try:
        for event in events:
            if isinstance(event, Sampled):
                bar = bar or Bar(Pace(event.total), "samples")
                bar.pace.completed(event.done)
                bar.draw(event.done)
            else:
                scores.append(event)
    finally:
        if bar:
            bar.end()
    return scores
