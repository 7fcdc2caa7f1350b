"""What a job was trained from, so that a later fleet can see whether it has changed.

Nothing of it depends on where files are: the same list may be read from another folder, or on another machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..data.listing import Listing
from ..names import candidates, names_file
from ..prompts import BUILT_IN
from ..training.config import FILE
from ..user_files import hashed
from .job_list import Job

Stamp = tuple[int, int, str]  # size in bytes, modification time in ns, SHA-256
SAMPLES, SAMPLE = 256, 4096  # of a model's file: its gigabytes would take half a minute


def inputs_of(job: Job) -> dict[str, Any]:
    """The job's options, model and files, as JSON has them. Reads every file. Raises UserError and OSError."""
    files = {name: [*_stat(path), _digest(path)] for name, path in _files(job).items()}
    return {"options": _options(job), "files": files}


def unchanged(inputs: dict[str, Any], job: Job) -> bool:
    """Whether the job still has these inputs. Files of the same size and time are not read."""
    before: dict[str, Stamp] = inputs["files"]
    now = _files(job)
    if inputs["options"] != _options(job) or {*before} != {*now}:
        return False
    return all(
        (size, time) == _stat(now[name]) or digest == _digest(now[name])
        for name, (size, time, digest) in before.items()
    )


def image_files(folder: Path) -> list[Path]:
    """The images of a folder with their captions and masks. Raises UserError."""
    listing = Listing.of(folder)
    found = [*listing.images, *listing.captions.values(), *listing.masks.values(), *listing.tables]
    return list(dict.fromkeys(found))


def model_identity(path: Path, prediction: str | None = None) -> str:
    """Identifies a model by samples of its files, and how its prediction is read. Raises OSError.

    One that is not on this machine, but on the nodes of a cluster, is identified by its path.
    """
    if not path.exists():
        return f"{path} {prediction}"
    digest = hashlib.sha256(str(prediction).encode())
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if not file.is_file() or re.search(r"(^|/)\.\w", name):  # what a download leaves in hidden folders
            continue
        size = file.stat().st_size
        digest.update(f"{name} {size} ".encode())
        with file.open("rb") as opened:
            for place in range(0, size, max(SAMPLE, size // SAMPLES)):
                opened.seek(place)
                digest.update(opened.read(SAMPLE))
    return digest.hexdigest()[:16]


def _options(job: Job) -> dict[str, Any]:
    """Those that decide the result."""
    config = job.config
    named = {
        "templates": config.templates if config.templates in BUILT_IN else FILE,
        "repeats": [*job.folders.values()],
        "model": job.model,
    }
    options: dict[str, Any] = json.loads(json.dumps(config.resume_identity() | config.ending() | named))
    return options


def _files(job: Job) -> dict[str, Path]:
    """The images with their captions and masks, the files of initial vectors and templates, by names of their own."""
    folders = enumerate(job.folders)
    found = {f"{i}/{path.relative_to(f).as_posix()}": path for i, f in folders for path in image_files(f)}
    initial = enumerate(filter(names_file, candidates(job.config.init)))
    found |= {f"init {i}": Path(text) for i, text in initial}
    return found if job.config.templates in BUILT_IN else found | {"templates": Path(job.config.templates)}


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _digest(path: Path) -> str:
    return hashed(path).hexdigest()
