"""Trainings as jobs: each waits its turn in the WebUI's queue, like a generation, and is found again by its id."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules import call_queue, devices, progress, shared

from ..ti_train.data.dataset import Dataset, encode_pictures, find_pictures, read_pictures
from ..ti_train.device import full_memory, is_out_of_memory
from ..ti_train.drawing.loss_plot import loss_plot
from ..ti_train.errors import UserError
from ..ti_train.events import Done, Preview, Step, Warning
from ..ti_train.prompts import Templates
from ..ti_train.training.config import TrainConfig
from ..ti_train.training.out_of_memory import train_in_memory
from ..ti_train.training.step_log import StepLog
from . import folders, unfinished
from .hosts import connect
from .request import TrainRequest

log = logging.getLogger("ti_train")
QUEUED, RUNNING, DONE, INTERRUPTED, FAILED = "queued", "running", "done", "interrupted", "failed"
KEPT = 32  # jobs that are remembered
DOES_NOT_FIT = "Lower the resolution, or close other programs that use the GPU."


class StopTraining(Exception):  # noqa: N818
    """The user asked for the end of this training."""


@dataclass
class Job:
    """A training from its request to its end."""

    id: str  # of the form that the WebUI's progress takes: task(...)
    request: TrainRequest
    config: TrainConfig
    file: Path
    state: str = QUEUED
    steps: list[Step] = field(default_factory=list)
    previews: list[Preview] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    error: str = ""
    stopped: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def loss(self) -> float | None:
        return next((step.loss for step in reversed(self.steps) if step.loss is not None), None)

    @property
    def noise_free_loss(self) -> float | None:
        return next((step.evaluation for step in reversed(self.steps) if step.evaluation is not None), None)

    def seconds_left(self) -> float | None:
        if len(self.steps) < 2:
            return None
        first, last = self.steps[0], self.steps[-1]
        return (last.seconds - first.seconds) / (last.step - first.step) * (self.config.steps - last.step)


jobs: OrderedDict[str, Job] = OrderedDict()


def start(request: TrainRequest, task: str | None = None) -> Job:
    """Checks a request and queues it. Raises UserError for what can be told at once."""
    config, file = request.config(), request.target()
    for folder in request.folders():
        find_pictures(folder)
    Templates.load(config.templates)
    if any(job.file == file for job in active()):
        raise UserError(f"The word '{request.name}' is being trained already. Interrupt that training first.")
    job = Job(task or progress.create_task_id("ti-train"), request, config, file)
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


def refused(task: str) -> None:
    """Tells the progress bar, which the page has started already, that there is nothing to wait for."""
    progress.finish_task(task)


def find(job_id: str) -> Job:
    """Raises KeyError."""
    return jobs[job_id]


def request_of(job_id: str) -> TrainRequest | None:
    """What a job was asked for, one of another session too where it was interrupted. Raises UserError if it runs."""
    job = jobs.get(job_id)
    if job and not job.ended.is_set():
        raise UserError(f"The training of '{job.request.name}' has not ended: there is nothing to resume.")
    return job.request if job else unfinished.of_job(job_id)


def interrupt(job: Job) -> None:
    """Ends a job after the step that it is in, or a waiting one when its turn comes."""
    job.stopped = True
    if job.state == RUNNING:
        shared.state.interrupt()  # a preview of its own ends too


def resume(request: TrainRequest, task: str | None = None) -> Job:
    """A new job that goes on where the one of this request was interrupted. Raises UserError."""
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
    """How a training ended, and what to tell the user where it failed."""
    try:
        _train(job)
    except StopTraining:
        return INTERRUPTED, ""
    except UserError as error:
        return FAILED, str(error)
    except Exception as error:
        if is_out_of_memory(error):  # outside of the steps: the pictures' latents take it too
            return FAILED, full_memory(error, DOES_NOT_FIT)
        log.exception("The training of '%s' failed", job.request.name)
        return FAILED, f"{type(error).__name__}: {error} (the WebUI's console says more)"
    return DONE, ""


def _train(job: Job) -> None:
    if job.stopped:
        raise StopTraining
    shared.state.job_count, shared.state.textinfo = job.config.steps, "Loading the model"
    host = connect()
    dataset = _dataset(job, host)
    record: StepLog | None = None
    try:
        folder, release = job.file.parent, devices.torch_gc
        with closing(train_in_memory(host, dataset, job.config, folder, job.request.resume, release)) as events:
            for number, event in enumerate(events):
                if number == 0:
                    unfinished.keep(job.id, job.request)
                if isinstance(event, Step):
                    record = record or _record(job, event.step)
                    _show_step(job, event, record)
                elif isinstance(event, Preview):
                    _show_preview(job, event)
                elif isinstance(event, Warning):
                    job.messages.append(event.message)
                elif isinstance(event, Done):
                    unfinished.forget(job.request.name)
                    log.info("Learnt '%s' in %.0f s: %s", job.config.name, event.seconds, event.path)
                if not isinstance(event, Done) and (job.stopped or _interrupted()):
                    raise StopTraining
    except host.Interrupted:
        raise StopTraining from None
    finally:
        if record:
            record.close()
            _draw(job, record)
        if job.file.exists():
            host.reread_words()


def _draw(job: Job, record: StepLog) -> None:
    """The loss as a picture; a disk that is full by now must not hide why the run ended."""
    file = folders.run_folder(job.request.name) / "loss.png"
    try:
        loss_plot(record.steps, job.request.name).save(file)
    except OSError as error:
        job.messages.append(f"'{file}' could not be written ({error.strerror or error}).")


def _interrupted() -> bool:
    return bool(shared.state.interrupted or shared.state.stopping_generation)


def _dataset(job: Job, host: Any) -> Dataset:
    shared.state.textinfo = "Preparing the pictures"
    repeats = job.request.folders()
    paths = [path for folder in repeats for path in find_pictures(folder)]
    captions = Templates.load(job.config.templates).use_captions
    side, config = job.config.resolution or host.resolution, job.config
    pictures = read_pictures(paths, side, job.messages, captions, config.mask, config.square, repeats)
    return encode_pictures(host, pictures, config.flip)


def _record(job: Job, step: int) -> StepLog | None:
    """The table of a run; it goes on where an interrupted run's ends."""
    if not shared.opts.ti_train_records:
        return None
    record = StepLog(folders.run_folder(job.request.name) / "loss.csv", step - 1)
    job.steps[:0] = record.steps
    return record


def _show_step(job: Job, step: Step, record: StepLog | None) -> None:
    job.steps.append(step)
    if record:
        record.add(step)
    shared.state.job_no = step.step
    noise_free = f", noise-free loss {job.noise_free_loss:.4f}" if job.noise_free_loss is not None else ""
    shared.state.textinfo = f"Learning '{job.request.name}': step {step.step} of {job.config.steps}{noise_free}"


def _show_preview(job: Job, preview: Preview) -> None:
    job.previews.append(preview)
    shared.state.assign_current_image(preview.image)
    if shared.opts.ti_train_records:
        number = job.config.preview_prompts.index(preview.prompt)
        folder = folders.run_folder(job.request.name)
        folder.mkdir(parents=True, exist_ok=True)
        preview.image.save(folder / f"step{preview.step:05d}-{number}.png")
