"""Training runs as jobs, which wait in the WebUI's queue like generations and have an id."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from modules import call_queue, devices, progress, shared

from ..ti_train.data.dataset import find_pictures
from ..ti_train.device import is_out_of_memory, out_of_memory_message
from ..ti_train.errors import UserError
from ..ti_train.events import Done, Event, Preview, Step, Warning
from ..ti_train.prompts import Templates
from ..ti_train.training.config import TrainConfig
from ..ti_train.training.session import Records, Session, load_dataset
from . import folders, unfinished
from .hosts import connect
from .request import TrainRequest

log = logging.getLogger("ti_train")
QUEUED, RUNNING, DONE, INTERRUPTED, FAILED = "queued", "running", "done", "interrupted", "failed"
KEPT = 32  # jobs that are kept
DOES_NOT_FIT = "Lower the resolution, or close other programs that use the GPU."


class StopTraining(Exception):  # noqa: N818
    """The user has interrupted this training."""


@dataclass
class Job:
    """A training run, from its request to its end."""

    id: str  # in the form of the WebUI's task ids: task(...)
    request: TrainRequest
    config: TrainConfig
    file: Path
    session: Session
    state: str = QUEUED
    previews: list[Preview] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    error: str = ""
    stopped: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


jobs: OrderedDict[str, Job] = OrderedDict()


def start(request: TrainRequest, task: str | None = None) -> Job:
    """Checks a request and queues it. Raises UserError for what can be checked at once."""
    config, file = request.config(), request.target()
    for folder in request.folders():
        find_pictures(folder)
    Templates.load(config.templates)
    if any(job.file == file for job in active()):
        raise UserError(f"'{request.name}' is already being trained. Interrupt that training first.")
    records = Records.in_own_folder(folders.run_folder(config.name)) if shared.opts.ti_train_records else None
    session = Session(config, folders.embeddings(), records)
    job = Job(task or progress.create_task_id("ti-train"), request, config, file, session)
    jobs[job.id] = job
    for old in [known for known in jobs.values() if known.ended.is_set()][:-KEPT]:
        del jobs[old.id]
    progress.add_task_to_queue(job.id)
    threading.Thread(target=_work, args=(job,), name=job.id, daemon=True).start()
    return job


def active() -> list[Job]:
    """Jobs that wait or run."""
    return [job for job in jobs.values() if not job.ended.is_set()]


def latest() -> Job | None:
    return next(reversed(jobs.values()), None)


def reject(task: str) -> None:
    """Ends the progress bar that the page has already started for a request that was not queued."""
    progress.finish_task(task)


def find(job_id: str) -> Job:
    """Raises KeyError."""
    return jobs[job_id]


def request_of(job_id: str) -> TrainRequest | None:
    """The request of a job, also of an interrupted one from an earlier session. Raises UserError if it is running."""
    job = jobs.get(job_id)
    if job and not job.ended.is_set():
        raise UserError(f"The training of '{job.request.name}' has not ended: there is nothing to resume.")
    return job.request if job else unfinished.of_job(job_id)


def interrupt(job: Job) -> None:
    """Ends a job after its current step, or a queued one when its turn comes."""
    job.stopped = True
    if job.state == RUNNING:
        shared.state.interrupt()  # also ends a preview that is being generated


def resume(request: TrainRequest, task: str | None = None) -> Job:
    """A new job that resumes the interrupted one with this request. Raises UserError."""
    return start(request.copy(update={"resume": True, "overwrite": False}), task)


def _work(job: Job) -> None:
    with call_queue.queue_lock:
        shared.state.begin(job=job.id)
        progress.start_task(job.id)
        job.state = RUNNING
        try:
            outcome, job.error = _outcome(job)
        finally:
            progress.finish_task(job.id)
            shared.state.end()
            shared.state.interrupted = shared.state.stopping_generation = False
            devices.torch_gc()
        job.state = outcome
        job.ended.set()


def _outcome(job: Job) -> tuple[str, str]:
    """How a training ended, and the error message if it failed."""
    try:
        _train(job)
    except StopTraining:
        return INTERRUPTED, ""
    except UserError as error:
        return FAILED, str(error)
    except Exception as error:
        if is_out_of_memory(error):  # outside of training steps, such as in encoding the images
            return FAILED, out_of_memory_message(error, DOES_NOT_FIT)
        log.exception("The training of '%s' failed", job.request.name)
        return FAILED, f"{type(error).__name__}: {error} (see the WebUI's console)"
    return DONE, ""


def _train(job: Job) -> None:
    if job.stopped:
        raise StopTraining
    shared.state.job_count, shared.state.textinfo = job.config.steps, "Loading the model"
    host = connect()
    shared.state.textinfo = "Encoding the images"
    dataset = load_dataset(host, job.request.folders(), job.config, job.messages)
    try:
        with closing(job.session.train(host, dataset, job.request.resume, devices.torch_gc)) as events:
            for number, event in enumerate(events):
                if number == 0:
                    unfinished.keep(job.id, job.request)
                _show(job, event)
                if job.session.done is None and (job.stopped or _interrupted()):
                    raise StopTraining
        unfinished.forget(job.request.name)
    except (StopTraining, host.Interrupted):
        raise StopTraining from None
    finally:
        if job.session.done is None and job.session.trained:
            job.messages.append(job.session.saved("with Resume"))
        host.release_weights()
        if job.file.exists():
            host.reload_embeddings()


def _interrupted() -> bool:
    return bool(shared.state.interrupted or shared.state.stopping_generation)


def _show(job: Job, event: Event) -> None:
    match event:
        case Step():
            shared.state.job_no = event.step
            measured = job.session.validation_loss
            validation = f", validation loss {measured:.4f}" if measured is not None else ""
            shared.state.textinfo = (
                f"Training '{job.request.name}': step {event.step} of {job.config.steps}{validation}"
            )
        case Preview():
            job.previews.append(event)
            shared.state.assign_current_image(event.image)
        case Warning():
            job.messages.append(event.message)
        case Done():
            log.info("Trained '%s' in %.0f s: %s. %s", job.config.name, event.seconds, event.path, event.why)
