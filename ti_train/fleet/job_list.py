"""The list of a fleet: which embeddings to train, on which images, with which options.

A CSV or JSON Lines file has one embedding per line: name, init, images, preset, and any option as a column. A folder
has one folder of images per embedding. Everything is checked before anything is trained; all faults are reported at
once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from csv import Error as CSVError
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from os.path import isdir
from pathlib import Path
from typing import Any

from ..data.dataset import find_pictures, with_repeats
from ..data.listing import Listing, subfolders
from ..errors import UserError
from ..names import BETWEEN, file_names, names_file, with_paths
from ..prompts import BUILT_IN, Templates
from ..text import csv_rows, decode, json_value, listed, with_rest
from ..training.config import OPTIONS, TrainConfig, with_preview_interval
from ..training.options import Option
from ..user_files import LONGEST_TABLE, text_bytes
from .own_files import OwnFiles
from .records import OWN

IMAGES, PRESET = "images", "preset"  # columns that are no options
OF_THE_MODEL = ("device", "dtype")
COLUMNS = {IMAGES, PRESET, *OPTIONS}
ALIASES = {alias: name for name, option in OPTIONS.items() for alias in option.aliases}
TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
MOST_FAULTS = 30
Entry = tuple[str, Callable[[], Mapping[str, Any]]]  # where it is, in words; reads its values, raises UserError


@dataclass(frozen=True)
class Job:
    """An embedding to train. folders: of its images -> repeats per epoch. model: its identity (inputs.py)."""

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


def read_jobs(source: Path, common: Common, out: Path | None = None) -> tuple[Job, ...]:
    """The jobs of a list. Raises UserError with all faults.

    out: the folder for the results, which are no training images.
    """
    jobs: list[Job] = []
    faults: list[str] = []
    files, beside = OwnFiles(), (source if source.is_dir() else source.parent).absolute()
    for where, read in _entries(source, out):
        try:
            job = _job(read(), common, beside)
            files.add(job.name, where)
            jobs.append(job)
        except UserError as error:
            faults.append(f"{where}: {error}")
        except OSError as error:  # a path that is too long, a folder that may not be entered
            faults.append(f"{where}: '{error.filename}' cannot be read ({error.strerror}).")
    if faults:
        count = "1 entry" if len(faults) == 1 else f"{len(faults)} entries"
        raise UserError(f"'{source}' has {count} that cannot be used:", *with_rest(faults, MOST_FAULTS))
    if not jobs:
        raise UserError(f"'{source}' lists no embedding. Write one per line, with name, init and images.")
    if out:
        _check_apart(jobs, out)
    return tuple(jobs)


def _check_apart(jobs: Iterable[Job], out: Path) -> None:
    """Raises UserError if results would be among training images."""
    images = {folder.resolve() for job in jobs for folder in job.folders}
    for folder in {out: None} | {(out / job.name).parent: None for job in jobs}:
        if folder.resolve() in images:
            raise UserError(
                f"'{folder}' has training images, and the pictures of trained embeddings would be written there, on "
                "which the next fleet would train. Choose another --out."
            )


def _entries(source: Path, out: Path | None) -> Iterator[Entry]:
    """Raises UserError if the list cannot be read."""
    if source.is_dir():
        yield from _folders(source, out)
        return
    try:
        text, _ = decode(text_bytes(source, LONGEST_TABLE))
    except UserError as error:
        raise UserError(f"The list '{source}' {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        wanted = "Give a CSV or JSONL file, or a folder."
        raise UserError(f"The list '{source}' cannot be read ({error}). {wanted}") from None
    yield from _json_lines(text) if source.suffix.lower() in (".jsonl", ".json", ".ndjson") else _rows(text)


def _folders(source: Path, out: Path | None) -> Iterator[Entry]:
    """The folders with images, and those that were meant to have some; no fleet's results."""
    folders = subfolders(source)
    place = out.resolve() if out else None
    between = {folder.parent for folder in folders} | {folder for folder in folders if folder.resolve() == place}
    results = {folder for folder in folders if isdir(folder / OWN)}
    for folder in folders:
        if results.isdisjoint((folder, *folder.parents)) and not _is_left_out(folder, folder in between):
            name = folder.relative_to(source).as_posix()
            yield f"folder '{name}'", partial(dict, {"name": name, IMAGES: [name]})


def _is_left_out(folder: Path, between: bool) -> bool:
    """Whether a folder has no images, and need not: it is between others, or has embeddings.

    One that cannot be read may have some: whoever reads them reports it.
    """
    with suppress(UserError):
        return not Listing.of(folder).images and (between or any(folder.glob("*.safetensors")))
    return False


def _rows(text: str) -> Iterator[Entry]:
    """The rows of a CSV file; blank ones are left out."""
    reader = csv_rows(text)
    try:
        columns = Counter(key.strip() for key in reader.fieldnames or () if key.strip())
        if twice := [key for key, count in columns.items() if count > 1]:
            raise UserError(f"The first line has these columns twice: {listed(twice)}. Each needs its own name.")
        for row in reader:
            surplus = [cell for cell in row.pop(None, ()) if cell.strip()]
            given = {key.strip(): value for key, value in row.items() if value and value.strip()}
            surplus += filter(None, [given.pop("", "")])  # in a column without a name
            if given or surplus:
                yield f"line {reader.line_num}", partial(_row, given, surplus)
    except CSVError as error:
        raise UserError(f"Line {reader.line_num} is not CSV ({error}). Save the table again.") from None


def _row(given: Mapping[str, str], surplus: Sequence[str]) -> Mapping[str, str]:
    if surplus:
        raise UserError(f"it has more cells than the first line has columns: {listed(surplus)}.")
    return given


def _json_lines(text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):  # JSON strings may have other line ends
        if line.strip():
            yield f"line {number}", partial(_object, line)


def _object(line: str) -> Mapping[str, Any]:
    try:
        values = json_value(line)
    except ValueError as error:
        raise UserError(f"it is not JSON ({error}). Write one object per line.") from None
    if not isinstance(values, dict):
        raise UserError('it is not an object. Write {"name": ..., "init": ..., "images": ...}.')
    return values


def _job(values: Mapping[str, Any], common: Common, beside: Path) -> Job:
    """beside: the folder that relative paths start from. Raises UserError and OSError."""
    columns = _columns(values)
    both = {**common.options, **{key: _value(OPTIONS[key], columns[key]) for key in columns if key in OPTIONS}}
    images = _texts(columns.get(IMAGES, ""))
    missing = [key for key in ("name", "init") if both.get(key) is None] + [IMAGES] * (not images)
    if missing:
        raise UserError(f"{' and '.join(missing)} missing.")
    both["init"] = with_paths(both["init"], partial(_file, beside=beside))
    if (templates := both.get("templates") or "object") not in BUILT_IN:
        both["templates"] = _file(templates, beside)
        Templates.load(both["templates"])
    folders = with_repeats(images, beside.joinpath)
    for folder in folders:
        find_pictures(folder)
    preset = str(columns.get(PRESET, common.preset))
    return Job(TrainConfig.from_preset(preset, **with_preview_interval(both)), folders, common.model)


def _columns(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values that are given, by the options' own names. Raises UserError."""
    columns: dict[str, Any] = {}
    for given, value in values.items():
        key = ALIASES.get(given, given)
        if value is None:
            continue
        if key in OF_THE_MODEL:
            raise UserError(f"{key} holds for the whole fleet, whose model is loaded once. Give it as --{key}.")
        if key not in COLUMNS:
            near = get_close_matches(key, [*COLUMNS, *ALIASES], 1)
            raise UserError(f"there is no option '{key}'." + (f" Do you mean '{near[0]}'?" if near else ""))
        if key in columns:
            raise UserError(f"'{given}' gives {key} a second time. Give it once.")
        columns[key] = value
    return columns


def _file(text: str, beside: Path) -> str:
    """The path of the file that a text names, in the list's folder or in the working folder. Raises UserError."""
    names = file_names(text) if names_file(text) else [text]
    file = next((folder / name for folder in (beside, Path.cwd()) for name in names if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"there is no file '{text}' in '{beside}'.")
    return str(file)


def _texts(value: Any) -> list[str]:
    parts = value if isinstance(value, list) else str(value).split(BETWEEN)
    return [text for part in parts if (text := str(part).strip())]


def _value(option: Option, value: Any) -> Any:
    """A cell or JSON value as the option's type. Raises UserError."""
    if option.kind == "lines":
        return tuple(_texts(value))
    if isinstance(value, list | dict):
        hint = f" Write {BETWEEN} between several." if option.name == "init" else ""
        raise UserError(f"{option.name} is {json.dumps(value)}; it must be one value.{hint}")
    text = str(value).strip()
    if option.kind == "switch":
        if text.lower() not in TRUE | FALSE:
            raise UserError(f"{option.name} is '{text}'; it must be true or false.")
        return text.lower() in TRUE
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
