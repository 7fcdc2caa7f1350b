"""Requests of unfinished training runs, saved so that they can be resumed after a restart."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ..ti_train.errors import UserError
from ..ti_train.files import files_below, write_atomically
from ..ti_train.names import check_name
from ..ti_train.text import json_value
from ..ti_train.training.checkpoint import name_in
from . import folders
from .request import TrainRequest

FOLDER = "unfinished"


def keep(job_id: str, request: TrainRequest) -> None:
    """Raises OSError."""
    file = _file(request.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps({"id": job_id, "request": request.dict()}, indent=1).encode())


def forget(name: str) -> None:
    _file(name).unlink(missing_ok=True)


def of_embedding(name: str) -> TrainRequest | None:
    """Raises UserError for an invalid name, and for damaged settings."""
    file = _file(name)
    try:
        return _read(file)[1]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(
            f"The settings of the interrupted training in '{file}' are damaged ({error}). Delete the file, and press "
            "Resume with the same settings in the fields."
        ) from None


def of_job(job_id: str) -> TrainRequest | None:
    for file in files_below(folders.training() / FOLDER):
        with suppress(OSError, ValueError, TypeError, LookupError):  # a deleted or damaged file is of no known job
            found, request = _read(file)
            if found == job_id:
                return request
    return None


def _read(file: Path) -> tuple[str, TrainRequest]:
    """The job and its request. Raises ValueError, TypeError and LookupError for a damaged file."""
    kept = json_value(file.read_bytes())
    return kept["id"], TrainRequest(**kept["request"])


def _file(name: str) -> Path:
    return folders.training() / FOLDER / f"{check_name(name_in(folders.embeddings(), name))}.json"
