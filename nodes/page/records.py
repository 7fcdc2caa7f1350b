"""Training runs on disk: a folder for each, with what the page shows of it after it has ended.

run.json is the run's snapshot with its settings; NUMBER.jpg is a preview, NUMBER.safetensors the embedding that it
shows. They are in ComfyUI's user directory, the last runs only.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
from PIL import Image

from ...ti_train.embedding import Embedding
from ...ti_train.events import Preview
from ...ti_train.files import remove_unfinished_in, state_of, write_atomically
from ...ti_train.formats import load_embedding, save_embedding
from ...ti_train.text import json_value
from ...ti_train.training.provenance import RUN

KEPT = 20  # runs
ALWAYS = {"name", "status", "prompt", "settings", "previews"}
NUMBER = int | float
PICTURE = {"number": int, "step": int, "prompt": str}
FACTS: dict[str, Any] = {  # of a run, as JSON: a type, a list of any length, a tuple of this one, or an object
    "name": str, "status": str, "prompt": str, "settings": dict, "step": int, "steps": int, "began": NUMBER,
    "best": (int, NUMBER), "previews": [PICTURE], "loss": [(int, NUMBER)], "evaluations": [(int, NUMBER)],
    "band": [(int, NUMBER, NUMBER)], "warnings": [str],
}  # fmt: skip
THUMBNAIL = 136  # pixels: twice the size in the strip, for dense screens


@dataclass(frozen=True)
class Record:
    """The folder of a run. Its methods raise OSError."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    def write(self, run: dict[str, Any]) -> None:
        """Makes it the newest record, also after the clock was set back."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "run.json"
        write_atomically(file, json.dumps(run, default=str).encode())
        dates = {folder: changed for changed, folder in _dates()}
        newest = max(dates.values(), default=0)
        if dates.get(self.folder, 0) < newest:
            os.utime(file, ns=(newest + 1, newest + 1))

    def read(self) -> dict[str, Any]:
        """The run as it was last written; {} if it was not, or if the file is damaged."""
        try:
            run = json_value((self.folder / "run.json").read_bytes())
            json.dumps(run, allow_nan=False)  # a browser reads no NaN, and all runs are in one answer
        except (OSError, ValueError):
            return {}
        whole = isinstance(run, dict) and run.keys() >= ALWAYS
        return run if whole and all(_fits(run[key], wanted) for key, wanted in FACTS.items() if key in run) else {}

    def add(self, number: int, preview: Preview) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        preview.image.convert("RGB").save(self.folder / f"{number}.jpg", quality=90)
        save_embedding(preview.embedding, self._embedding(number))

    def keep_only(self, numbers: Container[int]) -> None:
        """Deletes the other previews."""
        for file in self.folder.glob("*.*"):
            if file.stem.isdecimal() and int(file.stem) not in numbers:
                file.unlink(missing_ok=True)

    def preview(self, number: int, small: bool) -> bytes | None:
        """A JPEG file; None if it is no longer kept."""
        file = self.folder / f"{number}.jpg"
        if not file.is_file():
            return None
        if not small:
            return file.read_bytes()
        with Image.open(file) as image:
            image.draft("RGB", (THUMBNAIL, THUMBNAIL))
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            data = io.BytesIO()
            image.save(data, "JPEG", quality=85)
        return data.getvalue()

    def image(self, number: int) -> Image.Image | None:
        """A preview; None if it is no longer kept."""
        data = self.preview(number, small=False)
        return Image.open(io.BytesIO(data)) if data else None

    def embedding(self, number: int) -> Embedding | None:
        """The embedding that a preview shows; None if it is no longer kept."""
        file = self._embedding(number)
        return load_embedding(file) if file.is_file() else None

    def _embedding(self, number: int) -> Path:
        return self.folder / f"{number}.safetensors"


def new_record() -> Record:
    return Record(_all() / uuid.uuid4().hex)


def find(run: str) -> Record | None:
    """The record of a run by its id, as a page sent it."""
    record = Record(_all() / run)
    return record if re.fullmatch(r"[0-9a-f]{32}", run) and record.folder.is_dir() else None


def records() -> list[Record]:
    """Newest first."""
    return [Record(folder) for _, folder in sorted(_dates(), reverse=True)]


def interrupted_run(name: str) -> Record | None:
    """The record of the newest run of an embedding, if that run was not completed."""
    newest = next((record for record in records() if record.read().get("name") == name), None)
    return newest if newest and newest.read()["status"] != "done" else None


def run_that_wrote(embedding: Embedding) -> Record | None:
    """The record of the run whose embedding this is."""
    run = embedding.provenance.get(RUN)
    return next((record for record in records() if record.read().get(RUN) == run), None) if run else None


def rename(old: str, new: str) -> None:
    """Gives the runs of an embedding its new name; they keep their dates, and so their order."""
    for record in records():
        run, file = record.read(), record.folder / "run.json"
        if run.get("name") == old and (state := state_of(file)):
            record.write(renamed(run, new))
            os.utime(file, ns=(state.changed, state.changed))


def renamed(run: dict[str, Any], new: str) -> dict[str, Any]:
    """A run's snapshot after its embedding was renamed."""
    prompt = run["prompt"].replace(f"embedding:{run['name']}", f"embedding:{new}")
    return run | {"name": new, "prompt": prompt, "settings": run["settings"] | {"name": new}}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a JSON value is of a form, see FACTS."""
    match wanted:
        case dict():
            return isinstance(value, dict) and all(_fits(value.get(key), each) for key, each in wanted.items())
        case [each]:
            return isinstance(value, list) and all(_fits(one, each) for one in value)
        case tuple():
            fixed = isinstance(value, list) and len(value) == len(wanted)
            return fixed and all(map(_fits, value, wanted))
    return isinstance(value, wanted)


def delete_old() -> None:
    for record in records()[KEPT:]:
        shutil.rmtree(record.folder, ignore_errors=True)


def delete_unfinished() -> None:
    """Deletes what a killed server has left of records; before this one writes any."""
    for folder in _all().glob("*"):
        remove_unfinished_in(folder)
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def _dates() -> list[tuple[int, Path]]:
    """When each record was written, in nanoseconds since 1970, and its folder."""
    return [(state.changed, file.parent) for file in _all().glob("*/run.json") if (state := state_of(file))]


def _all() -> Path:
    return Path(folder_paths.get_user_directory()) / "ti_train" / "runs"
