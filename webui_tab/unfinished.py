"""Requests of unfinished training runs, saved so that they can be resumed after a restart."""

from __future__ import annotations

import json
from pathlib import Path

from ..ti_train.files import write_atomically
from ..ti_train.names import check_name
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
    """Raises UserError for an invalid name."""
    return TrainRequest(**json.loads(_file(name).read_bytes())["request"]) if _file(name).is_file() else None


def of_job(job_id: str) -> TrainRequest | None:
    files = (folders.training() / FOLDER).rglob("*.json")
    kept = (json.loads(file.read_bytes()) for file in files)
    return next((TrainRequest(**run["request"]) for run in kept if run["id"] == job_id), None)


def _file(name: str) -> Path:
    return folders.training() / FOLDER / f"{check_name(name_in(folders.embeddings(), name))}.json"
