"""The command line's progress bars."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from ..evaluation.evaluate import Sampled
from ..evaluation.scores import Score
from ..events import Step

REDRAW = 0.1  # seconds


class Bar:
    """One line that is redrawn on a terminal; a line every tenth of the run where the output is a file."""

    def __init__(self, total: int, unit: str, stream: TextIO | None = None) -> None:
        self.total, self.unit, self.stream = total, unit, stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.first: tuple[int, float] | None = None  # count and seconds at which this part of the run began
        self.drawn = 0.0
        self.tenth = -1  # the last one that has a line
        self.open = False

    def draw(self, done: int, seconds: float, note: str = "") -> None:
        self.first = self.first or (done, seconds)
        last = done == self.total
        if self.terminal:
            if last or time.monotonic() - self.drawn > REDRAW:
                self.drawn = time.monotonic()
                line = self.line(done, seconds, note)
                self._write("\r" + line[: shutil.get_terminal_size().columns - 1].ljust(20))
                self.open = True
        elif last or done * 10 // self.total > self.tenth:
            self.tenth = done * 10 // self.total
            self._write(self.line(done, seconds, note) + "\n")

    def line(self, done: int, seconds: float, note: str) -> str:
        first_done, first_seconds = self.first or (0, 0.0)
        spent = seconds - first_seconds
        rate = (done - first_done) / spent if spent > 0 else 0.0
        left = f"{(self.total - done) / rate:.0f} s left" if rate else "starting"
        filled = round(20 * done / self.total)
        bar = "#" * filled + "." * (20 - filled)
        return f"[{bar}] {done}/{self.total}  {note}{rate:.1f} {self.unit}/s  {left}"

    def say(self, message: str) -> None:
        self.end()
        self._write(message + "\n")

    def end(self) -> None:
        if self.open:
            self._write("\n")
            self.open = False

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class ProgressBar(Bar):
    """The bar of a training run."""

    def __init__(self, steps: int, stream: TextIO | None = None) -> None:
        super().__init__(steps, "steps", stream)
        self.evaluation: float | None = None

    def show(self, step: Step) -> None:
        self.evaluation = step.evaluation if step.evaluation is not None else self.evaluation
        self.draw(step.step, step.seconds, self.note(step))

    def note(self, step: Step) -> str:
        loss = f"loss {step.loss:.4f}" if step.loss is not None else "untrained"
        return loss + (f"  noise-free {self.evaluation:.4f}  " if self.evaluation is not None else "  ")


def scores_of(events: Iterable[Sampled | Score]) -> list[Score]:
    """Runs an evaluation behind a bar; the bar ends on its own line however the run ends."""
    scores: list[Score] = []
    bar: Bar | None = None
    try:
        for event in events:
            if isinstance(event, Sampled):
                bar = bar or Bar(event.total, "samples")
                bar.draw(event.done, time.monotonic())
            else:
                scores.append(event)
    finally:
        if bar:
            bar.end()
    return scores
