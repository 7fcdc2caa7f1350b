"""Training one embedding of a fleet on a host that is open: what every engine calls."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ..device import LOWER_RESOLUTION, out_of_memory_as_user_error
from ..embedding import number_in, step_in
from ..errors import BusyError, DiskError, PassingError, UserError
from ..events import Done, Step, Warning
from ..formats import load_embedding
from ..host import Host
from ..prompts import Templates
from ..text import Remarks
from ..training.checkpoint import RunFiles
from ..training.loop import identity, is_complete
from ..training.passes import ALONE, Passes
from ..training.session import Session, load_dataset
from ..training.step_log import read_steps
from .inputs import inputs_of
from .job_list import Job
from .records import Record, Retry
from .sheet import records_of

DOES_NOT_FIT = f"{LOWER_RESOLUTION} Fewer workers need less memory."
STAYS = "Worse than its untrained vectors, so it is '{}'; the earlier '{}' stays, and scores are of that one."
Stop = Callable[[], bool]  # whether the fleet was stopped
# The scores of a job whose embedding is in a folder. Raises Stopped.
Evaluate = Callable[[Host, Job, Path, Stop], dict[str, float]]


class Stopped(Exception):  # noqa: N818 - no error: the user has stopped the fleet
    """The fleet was stopped; the embedding is saved and can be resumed."""


@dataclass(frozen=True)
class Limits:
    """When a training ends early. seconds: after which it fails; 0 = never."""

    seconds: float = 0.0
    stop: Stop = lambda: False


def train_job(
    host: Host, job: Job, out: Path, limits: Limits, evaluate: Evaluate | None = None, passes: Passes = ALONE
) -> Record:
    """Trains the embedding, or resumes it, or finds it finished; then evaluates it.

    Raises Stopped, and BusyError if a run outside of the fleet trains it; every other end is in the record.
    """
    remarks = Remarks()
    record = replace(_trained(host, job, out, limits, passes, remarks), remarks=remarks)
    if record.status != "done" or evaluate is None:
        return record
    try:
        with out_of_memory_as_user_error(DOES_NOT_FIT):
            return replace(record, scores=evaluate(host, job, out, limits.stop))
    except (UserError, OSError) as error:
        return replace(record, error=f"Trained, but not evaluated: {error}")


def _trained(host: Host, job: Job, out: Path, limits: Limits, passes: Passes, remarks: Remarks) -> Record:
    """remarks: what the user should know is appended."""
    began = time.monotonic()
    record = Record(job.name, worker=f"{socket.gethostname()}:{os.getpid()}")
    try:
        record = replace(record, inputs=inputs_of(job))
        with out_of_memory_as_user_error(DOES_NOT_FIT):
            dataset = load_dataset(host, job.folders, job.config, remarks)
        files = RunFiles(out, job.name, identity(host, dataset, job.config, Templates.load(job.config.templates)))
        if files.has_finished():  # but its record could not be written any more
            with files.locked():  # which removes what a killed run has left
                if files.can_resume() and is_complete(files.load(), job.config):
                    files.finish()
            return _found(record, load_embedding(files.embedding).provenance, read_steps(records_of(out, job.name).log))
        session = Session(job.config, out, records_of(out, job.name))
        with closing(session.train(host, dataset, files.can_resume(), passes=passes)) as events:
            for event in events:
                if isinstance(event, Warning):
                    remarks.append(event.message)
                elif isinstance(event, Step):
                    record = replace(record, steps=event.step, seconds=event.seconds)
                elif isinstance(event, Done):
                    loss = session.kept[1] if session.kept else None
                    record = replace(record, status="done", kept=event.kept, loss=loss, improved=event.improved)
                    if event.path == files.embedding:
                        return record
                    return replace(record, error=STAYS.format(event.path.name, files.embedding.name))
                if limits.stop():
                    raise Stopped
                if 0 < limits.seconds < time.monotonic() - began and record.steps < job.config.steps:
                    return _failed(record, _late(limits.seconds, record.steps), "later")
    except BusyError:
        raise
    except PassingError as error:
        return _failed(record, str(error), "now")
    except (DiskError, OSError) as error:  # a full disk, a folder that has gone
        return _failed(record, str(error), "later")
    except UserError as error:
        return _failed(record, str(error), "never")
    return record


def _found(record: Record, header: Mapping[str, str], log: Sequence[Step]) -> Record:
    """The record of an embedding that was found finished. header: of its file. log: of its steps."""
    keys = ("validation_loss", "validation_loss_untrained")
    loss, untrained = (number_in(header, key) for key in keys)
    improved = None if loss is None or untrained is None else loss <= untrained
    kept = step_in(header) or 0
    steps, seconds = [(kept, 0.0), *((step.step, step.seconds) for step in log)][-1]
    return replace(record, status="done", steps=steps, kept=kept, loss=loss, improved=improved, seconds=seconds)


def _failed(record: Record, error: str, retry: Retry) -> Record:
    return replace(record, status="failed", error=" ".join(error.split()), retry=retry)


def _late(seconds: float, step: int) -> str:
    return (
        f"The time limit of {seconds:g} s was reached after step {step}. The same command continues from there; give a "
        "longer --time-limit if it needs one."
    )
