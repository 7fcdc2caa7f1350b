"""The list of a fleet: which embeddings to train, on which images, with which options.

A CSV or JSON Lines file has one embedding per line: name, init, images, preset, and any option as a column. A folder
has one folder of images per embedding. Everything is checked before anything is trained; all faults are reported at
once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..data.dataset import find_pictures, with_repeats
from ..data.listing import Listing, subfolders
from ..errors import UserError
from ..names import BETWEEN, file_names, names_file, with_paths
from ..text import csv_rows, decode, name_key, with_rest
from ..training.config import OPTIONS, TrainConfig
from ..training.learning_rate import number_or_schedule
from ..training.options import Option

IMAGES, PRESET = "images", "preset"  # columns that are no options
OF_THE_MODEL = ("device", "dtype")
COLUMNS = {IMAGES, PRESET, *OPTIONS}
ALIASES = {alias: name for name, option in OPTIONS.items() for alias in option.aliases}
TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
MOST_FAULTS = 30


@dataclass(frozen=True)
class Job:
    """An embedding to train. folders: of its images -> repeats per epoch. model: the name of its file or folder."""

    config: TrainConfig
    folders: Mapping[Path, int]
    model: str

    @property
    def name(self) -> str:
        return self.config.name


@dataclass(frozen=True)
class Common:
    """What all jobs share, unless the list says otherwise. options: name -> value, None if it is not given."""

    model: str
    preset: str
    options: Mapping[str, Any]


def read_jobs(source: Path, common: Common) -> tuple[Job, ...]:
    """The jobs of a list. Raises UserError with all faults."""
    jobs: list[Job] = []
    faults: list[str] = []
    names: dict[str, str] = {}  # as file systems compare them -> where it is
    for where, values in _entries(source):
        try:
            job = _job(values, common, source if source.is_dir() else source.parent)
            first = names.setdefault(name_key(job.name), where)
            if first != where:
                raise UserError(f"the name '{job.name}' is used by {first} too. Each embedding needs its own.")
            jobs.append(job)
        except UserError as error:
            faults.append(f"{where}: {error}")
    if faults:
        count = "1 entry" if len(faults) == 1 else f"{len(faults)} entries"
        raise UserError("\n".join([f"'{source}' has {count} that cannot be used:", *with_rest(faults, MOST_FAULTS)]))
    if not jobs:
        raise UserError(f"'{source}' lists no embedding. Write one per line, with name, init and images.")
    return tuple(jobs)


def _entries(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each entry is, in words, and its values. Raises UserError if the list cannot be read."""
    if source.is_dir():
        for folder in subfolders(source):
            if Listing.of(folder).images:
                name = folder.relative_to(source).as_posix()
                yield f"folder '{name}'", {"name": name, IMAGES: name}
        return
    try:
        text, _ = decode(source.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        wanted = "Give a CSV or JSONL file, or a folder."
        raise UserError(f"The list '{source}' cannot be read ({error}). {wanted}") from None
    yield from _json_lines(text) if source.suffix.lower() in (".jsonl", ".json", ".ndjson") else _rows(text)


def _rows(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a CSV file. Empty cells are not given."""
    reader = csv_rows(text, restkey="")
    for row in reader:
        cells = {key.strip(): value for key, value in row.items() if key and isinstance(value, str) and value.strip()}
        if "" in row:
            cells[""] = row[""]
        if cells:
            yield f"line {reader.line_num}", cells


def _json_lines(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):  # JSON strings may have other line ends
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise UserError(f"Line {number} is not JSON ({error}). Write one object per line.") from None
        if not isinstance(values, dict):
            raise UserError(f'Line {number} is not an object. Write {{"name": ..., "init": ..., "images": ...}}.')
        yield f"line {number}", values


def _job(values: Mapping[str, Any], common: Common, beside: Path) -> Job:
    """beside: the folder that relative paths start from."""
    if "" in values:
        raise UserError(f"it has more cells than the first line has columns: {values['']}")
    columns = {ALIASES.get(key, key): value for key, value in values.items() if value is not None}
    for key in columns:
        if key in OF_THE_MODEL:
            raise UserError(f"{key} holds for the whole fleet, whose model is loaded once. Give it as --{key}.")
        if key not in COLUMNS:
            near = get_close_matches(key, [*COLUMNS, *ALIASES], 1)
            raise UserError(f"there is no option '{key}'." + (f" Do you mean '{near[0]}'?" if near else ""))
    read = {key: _value(OPTIONS[key], value) for key, value in columns.items() if key in OPTIONS}
    both = {**common.options, **read}
    missing = [key for key in ("name", "init") if both.get(key) is None] + [IMAGES] * (IMAGES not in columns)
    if missing:
        raise UserError(f"{' and '.join(missing)} missing.")
    both["init"] = with_paths(both["init"], lambda text: _file_beside(text, beside))
    both["templates"] = _file_beside(both.get("templates") or "", beside) or None
    folders = with_repeats(_texts(columns[IMAGES]), beside.joinpath)
    for folder in folders:
        find_pictures(folder)
    return Job(TrainConfig.from_preset(str(columns.get(PRESET, common.preset)), **both), folders, common.model)


def _file_beside(text: str, folder: Path) -> str:
    """The path of a file that a text means, if there is one in the list's folder; else the text."""
    names = file_names(text) if names_file(text) else [text]
    return next((str(folder / name) for name in names if (folder / name).is_file()), text)


def _texts(value: Any) -> list[str]:
    return [str(item).strip() for item in (value if isinstance(value, list) else str(value).split(BETWEEN))]


def _value(option: Option, value: Any) -> Any:
    """A cell or JSON value as the option's type. Raises UserError."""
    if option.kind == "lines":
        return tuple(_texts(value))
    text = str(value).strip()
    if option.kind == "switch":
        if text.lower() not in TRUE | FALSE:
            raise UserError(f"{option.name} is '{text}'; it must be true or false.")
        return text.lower() in TRUE
    if option.name == "learning_rate":
        return number_or_schedule(text)
    if option.kind not in ("int", "float"):
        return text
    try:
        return int(text) if option.kind == "int" else float(text)
    except ValueError:
        wanted = "a whole number" if option.kind == "int" else "a number"
        raise UserError(f"{option.name} is '{text}'; it must be {wanted}.") from None


def shard_of(jobs: Iterable[Job], shard: str) -> tuple[Job, ...]:
    """Every n-th job, from the i-th, for a shard i/n. Raises UserError."""
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(f"The shard '{shard}' must be i/n, such as 1/4 to 4/4 on four machines.")
    return tuple(jobs)[int(index) - 1 :: int(count)]
