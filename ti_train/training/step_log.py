"""The step log: a CSV file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..errors import UserError
from ..events import Step
from ..files import write_atomically
from ..user_files import text_bytes

LONGEST_LOG = 2**28  # bytes: more than five million steps
COLUMNS = ("step", "loss", "noise_free_loss", "learning_rate", "norm", "cosine_to_init", "seconds", "validation_error")


class StepLog:
    """A CSV file with one line per step, flushed after each."""

    def __init__(self, path: Path, after: int = 0) -> None:
        """after: the last step of an interrupted run to keep, as `earlier`; 0 overwrites the file."""
        self.earlier = [step for step in read_steps(path) if step.step <= after] if after else []
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = io.StringIO(newline="")
        csv.writer(rows).writerows([COLUMNS, *map(_row, self.earlier)])
        write_atomically(path, rows.getvalue().encode())
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)

    def add(self, step: Step) -> None:
        self._writer.writerow(_row(step))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _row(step: Step) -> list[object]:
    measured = (step.norm, step.cosine, step.seconds, step.validation_error)
    numbers = (step.loss, step.validation_loss, step.learning_rate, *measured)
    return [step.step, *("" if n is None else f"{n:.6g}" for n in numbers)]


def check_step_log(path: Path) -> None:
    """Raises UserError if there is another file in the place of the step log, which would be overwritten."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        ours = file.readline(len(",".join(COLUMNS))).startswith(",".join(COLUMNS[:2]))
    if not ours:
        raise UserError(
            f"'{path}' is not the table of a training run, which is written there. Move it, or choose another name."
        )


def read_steps(path: Path) -> list[Step]:
    """The steps in a CSV file written by StepLog; [] if it does not exist. Lines that are damaged are left out.

    Raises UserError for one that is too large to be a step log.
    """
    try:
        text = text_bytes(path, LONGEST_LOG).decode(errors="replace").replace("\r", "")
    except FileNotFoundError:
        return []
    except UserError as error:
        raise UserError(f"The step log '{path}' {error}") from None
    header, *lines = text.split("\n")[:-1] or [""]  # a full disk or a power cut leaves a part of a line
    columns = header.split(",")
    steps = (_step(dict(zip(columns, line.split(","), strict=False))) for line in lines)
    return [step for step in steps if step]


def _step(row: dict[str, str]) -> Step | None:
    """The step of a row; None if it is none: a power cut leaves zeros, and a spreadsheet writes its own numbers."""
    try:
        n = {key: float(value) if value else None for key, value in row.items()}
        rate, norm, cosine, seconds = (n[key] or 0.0 for key in COLUMNS[3:7])
        error = n.get("validation_error")  # earlier versions have none
        step, loss, validation_loss = int(n["step"] or 0), n["loss"], n["noise_free_loss"]
    except (KeyError, ValueError, OverflowError):
        return None
    return Step(step, loss, validation_loss, rate, norm, cosine, seconds, validation_error=error)
