"""What became of each embedding of a fleet: one small file per embedding, and tables of all of them."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ..files import write_atomically
from ..text import json_value

Status = Literal["waiting", "running", "done", "failed"]
Retry = Literal["now", "later", "never"]
OWN = ".fleet"  # the subfolder of --out with what a fleet needs to continue
COMMAND = ".command.json"  # in OWN; no embedding has such a name
NOT_IN_TABLES = ("inputs", "retry")
FLAG = "below_threshold"  # column
IMAGE = "image_similarity"  # the score that a threshold is about


@dataclass(frozen=True)
class Record:
    """The state of one embedding.

    steps: completed. kept: the step whose vectors are in the file. loss: their validation loss. seconds: of all steps.
    retry: of a failure, whether the same may succeed at once (memory, lost worker), in a later fleet, or only if
    something is changed. inputs: what it was trained from (inputs.py).
    """

    name: str
    status: Status = "waiting"
    steps: int = 0
    kept: int | None = None
    loss: float | None = None
    improved: bool | None = None
    seconds: float = 0.0
    attempts: int = 0
    error: str = ""
    remarks: Sequence[str] = ()  # warnings of the run: what was not used, what did not go well
    worker: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    retry: Retry = "never"
    inputs: dict[str, Any] = field(default_factory=dict, repr=False)

    def is_below(self, threshold: float) -> bool:
        """Whether it was evaluated, and its image similarity is too low."""
        return self.scores.get(IMAGE, threshold) < threshold


PATTERN = Record("", kept=0, loss=0.0, improved=False, remarks=[])


@dataclass(frozen=True)
class Command:
    """The latest command of a fleet. began: Unix time."""

    retries: int
    began: float


Noted = TypeVar("Noted", Record, Command)


class Ledger:
    """The records in a fleet's folder."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / OWN

    def read(self, name: str) -> Record | None:
        """None if there is no record, or no readable one, or that of another name: see is_of_another."""
        record = self._record(name)
        return record if record and record.name == name else None

    def is_of_another(self, name: str) -> bool:
        """Whether the record is that of another name: not every file system tells `Cat` from `cat`."""
        record = self._record(name)
        return record is not None and record.name != name

    def _record(self, name: str) -> Record | None:
        try:
            record = _typed(Record(**json_value(self._file(name).read_bytes())), PATTERN)
            return record if _is_known(record) else None
        except (OSError, ValueError, TypeError):
            return None

    def write(self, record: Record) -> None:
        """Raises OSError."""
        file = self._file(record.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(asdict(record)).encode())

    def time_of(self, name: str) -> float:
        """When a record was written, as Unix time; 0 if there is none."""
        try:
            return self._file(name).stat().st_mtime
        except OSError:
            return 0.0

    def begin(self, retries: int) -> None:
        """Notes that a command begins. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / COMMAND, json.dumps(asdict(Command(retries, time.time()))).encode())

    def command(self) -> Command | None:
        """The latest one; None if there is no readable note of it."""
        try:
            return _typed(Command(**json_value((self.folder / COMMAND).read_bytes())), Command(0, 0.0))
        except (OSError, ValueError, TypeError):
            return None

    def names(self) -> list[str]:
        """The names of the fleet's list, as the last table has them."""
        try:
            return [str(entry["name"]) for entry in json_value((self.out / "fleet.json").read_bytes())]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def write_tables(self, records: Sequence[Record], threshold: float = 0.0) -> None:
        """fleet.json and fleet.csv. threshold: flags embeddings whose image similarity is below. Raises OSError."""
        rows = [_row(record, threshold) for record in records]
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / "fleet.json", json.dumps(rows, indent=1).encode())
        write_atomically(self.out / "fleet.csv", _as_csv(rows).encode())

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _typed(read: Noted, pattern: Noted) -> Noted:
    """What was read, if its values are of the pattern's types, or None by default. Raises TypeError."""
    for each in fields(read):
        value, wanted = getattr(read, each.name), getattr(pattern, each.name)
        kinds = (int, float) if isinstance(wanted, float) else type(wanted)
        if not isinstance(value, kinds) and not (value is None is each.default):
            raise TypeError(f"{each.name}: {value!r}")
    return read


def _is_known(record: Record) -> bool:
    """Whether a record's words, and what is in its lists and dictionaries, are such as are written."""
    return (
        record.status in get_args(Status)
        and record.retry in get_args(Retry)
        and all(isinstance(remark, str) for remark in record.remarks)
        and all(isinstance(score, float | int) for score in record.scores.values())
        and (not record.inputs or _are_inputs(**record.inputs))
    )


def _are_inputs(options: Any, files: Any) -> bool:
    """Raises TypeError for other names."""
    stamps = files.values() if isinstance(files, dict) else [None]
    return isinstance(options, dict) and all(
        isinstance(stamp, list) and [*map(type, stamp)] == [int, int, str] for stamp in stamps
    )


def _row(record: Record, threshold: float) -> dict[str, Any]:
    row = {key: value for key, value in asdict(record).items() if key not in NOT_IN_TABLES}
    return row | {FLAG: record.is_below(threshold) if threshold and IMAGE in record.scores else None}


def _as_csv(rows: Iterable[dict[str, Any]]) -> str:
    """One column for each score."""
    flat = [{**row, **row["scores"], "remarks": " ".join(row["remarks"])} for row in rows]
    measures = dict.fromkeys(key for row in flat for key in row["scores"])
    columns = [f.name for f in fields(Record) if f.name not in (*NOT_IN_TABLES, "scores")]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*columns, FLAG, *measures], extrasaction="ignore")
    table.writeheader()
    table.writerows(flat)
    return text.getvalue()
