"""The step log: a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import UserError
from ..events import Step

COLUMNS = ("step", "loss", "noise_free_loss", "learning_rate", "norm", "cosine_to_init", "seconds", "validation_error")


class StepLog:
    """A CSV file with one line per step, flushed after each."""

    def __init__(self, path: Path, after: int = 0) -> None:
        """after: the last step of an interrupted run to keep, as `earlier`; 0 overwrites the file."""
        self.earlier = [step for step in read_steps(path) if step.step <= after] if after else []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        for step in self.earlier:
            self.add(step)

    def add(self, step: Step) -> None:
        numbers = (
            step.loss,
            step.validation_loss,
            step.learning_rate,
            step.norm,
            step.cosine,
            step.seconds,
            step.validation_error,
        )
        self._writer.writerow([step.step, *("" if n is None else f"{n:.6g}" for n in numbers)])
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def check_step_log(path: Path) -> None:
    """Raises UserError if there is another file in the place of the step log, which would be overwritten."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        ours = file.readline().startswith(",".join(COLUMNS[:2]))
    if not ours:
        raise UserError(
            f"'{path}' is not the table of a training run, which is written there. Move it, or choose another name."
        )


def read_steps(path: Path) -> list[Step]:
    """The steps in a CSV file written by StepLog; [] if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    number = [{key: float(value) if value else None for key, value in row.items()} for row in rows]
    return [
        Step(
            int(n["step"] or 0),
            n["loss"],
            n["noise_free_loss"],
            n["learning_rate"] or 0.0,
            n["norm"] or 0.0,
            n["cosine_to_init"] or 0.0,
            n["seconds"] or 0.0,
            validation_error=n.get("validation_error"),  # earlier versions have none
        )
        for n in number
    ]
