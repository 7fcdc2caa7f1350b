"""What a job was trained from, so that a later fleet can see whether it has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..data.listing import Listing
from ..names import candidates, names_file
from .jobs import Job

Stamp = tuple[int, int, str]  # size in bytes, modification time in ns, SHA-256


def inputs_of(job: Job) -> dict[str, Any]:
    """The job's options, model and files, as JSON has them. Reads every file."""
    files = {str(path): [*_stat(path), _digest(path)] for path in _files(job)}
    return {"options": _options(job), "files": files}


def unchanged(inputs: dict[str, Any], job: Job) -> bool:
    """Whether the job still has these inputs. Files of the same size and time are not read."""
    files: dict[str, Stamp] = inputs["files"]
    if inputs["options"] != _options(job) or {*files} != {str(path) for path in _files(job)}:
        return False
    return all(
        (size, time) == _stat(Path(path)) or digest == _digest(Path(path))
        for path, (size, time, digest) in files.items()
    )


def _options(job: Job) -> dict[str, Any]:
    repeats = {str(folder): times for folder, times in job.folders.items()}
    options: dict[str, Any] = json.loads(
        json.dumps(job.config.resume_identity() | {"images": repeats, "model": job.model})
    )
    return options


def _files(job: Job) -> list[Path]:
    """The images with their captions and masks, and files of initial vectors and templates."""
    found: list[Path] = []
    for listing in map(Listing.of, job.folders):
        found += [*listing.images, *listing.captions.values(), *listing.masks.values(), *listing.tables]
    named = [*filter(names_file, candidates(job.config.init)), job.config.templates]
    return list(dict.fromkeys([*found, *(Path(text) for text in named if Path(text).is_file())]))


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
