"""What a fleet has to do: everything that is not finished, or has changed since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..text import listed, with_rest
from ..training.checkpoint import RunFiles
from .claims import Claims
from .inputs import unchanged
from .job_list import Job
from .records import Ledger, Record


def plan(jobs: Sequence[Job], ledger: Ledger, update: bool, evaluate: bool = False) -> list[str]:
    """Marks what is to be trained, or only to be evaluated, as waiting; returns remarks for the user.

    update: what has changed too. Failures that cannot succeed now are tried again only if their job has changed.
    Raises UserError if embeddings are in the way that no fleet has trained.
    """
    claims, changed = Claims(ledger.folder), []
    foreign = [job.name for job in jobs if _in_the_way(job, ledger, claims)]
    if foreign:
        count = f"{len(foreign)} embedding(s) in '{ledger.out}' are not of this fleet and would be replaced."
        what = "Choose another --out or other names, or move them:"
        raise UserError(f"{count} {what}", *with_rest(foreign))
    for job in jobs:
        record = ledger.read(job.name)
        if record is None or record.status == "waiting":
            continue
        same = unchanged(record.inputs, job) if record.inputs else record.retry != "never"
        done = record.status == "done" and _embedding(ledger.out, job).exists()
        if done and not same and not update:
            changed.append(job.name)
        elif done and evaluate and not record.scores:
            ledger.write(Record(job.name))  # found finished, or trained again if its result is NAME-worse
        elif not same or (not done and record.retry != "never") or (record.status == "done" and not done):
            ledger.write(Record(job.name))
    if not changed:
        return []
    what = f"{len(changed)} embedding(s) were trained from other images, options or another model: {listed(changed)}."
    return [f"{what} To train them again, use --update."]


def _in_the_way(job: Job, ledger: Ledger, claims: Claims) -> bool:
    if not _embedding(ledger.out, job).exists():
        return False
    known = ledger.read(job.name) or claims.exist(job.name)
    return not known or ledger.is_of_another(job.name)


def _embedding(out: Path, job: Job) -> Path:
    return RunFiles(out, job.name, {}).embedding
