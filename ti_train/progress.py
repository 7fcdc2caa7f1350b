"""The command line's progress bar."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from .loop import Step

REDRAW = 0.1  # seconds


class ProgressBar:
    """One line that is redrawn on a terminal; a line every tenth of the run where the output is a file."""

    def __init__(self, steps: int, stream: TextIO | None = None) -> None:
        self.steps, self.stream = steps, stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.first: tuple[int, float] | None = None  # step and seconds at which this part of the run began
        self.evaluation: float | None = None
        self.drawn = 0.0
        self.open = False

    def show(self, step: Step) -> None:
        self.first = self.first or (step.step, step.seconds)
        self.evaluation = step.evaluation if step.evaluation is not None else self.evaluation
        last = step.step == self.steps
        if self.terminal:
            if last or time.monotonic() - self.drawn > REDRAW:
                self.drawn = time.monotonic()
                self._write("\r" + self.line(step)[: shutil.get_terminal_size().columns - 1].ljust(20))
                self.open = True
        elif last or step.step % max(1, self.steps // 10) == 0:
            self._write(self.line(step) + "\n")

    def line(self, step: Step) -> str:
        first_step, first_seconds = self.first or (0, 0.0)
        spent = step.seconds - first_seconds
        rate = (step.step - first_step) / spent if spent > 0 else 0.0
        left = f"{(self.steps - step.step) / rate:.0f} s left" if rate else "starting"
        filled = round(20 * step.step / self.steps)
        loss = f"loss {step.loss:.4f}" if step.loss is not None else "untrained"
        noise_free = f"  noise-free {self.evaluation:.4f}" if self.evaluation is not None else ""
        bar = "#" * filled + "." * (20 - filled)
        return f"[{bar}] {step.step}/{self.steps}  {loss}{noise_free}  {rate:.1f} steps/s  {left}"

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
