"""Training runs as jobs, which wait in the WebUI's queue like generations and have an id."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules import call_queue, devices, progress, shared

from ..ti_train.data.dataset import find_pictures
from ..ti_train.device import is_out_of_memory, out_of_memory_message
from ..ti_train.errors import DiskError, UserError
from ..ti_train.events import Checkpoint, Done, Event, Preview, Step, Warning
from ..ti_train.prompts import Templates
from ..ti_train.text import Remarks
from ..ti_train.training.config import TrainConfig
from ..ti_train.training.session import Records, Session, load_dataset
from . import folders, unfinished
from .hosts import connect
from .previews import Previews
from .request import TrainRequest

log = logging.getLogger("ti_train")
QUEUED, RUNNING, DONE, INTERRUPTED, FAILED = "queued", "running", "done", "interrupted", "failed"
KEPT = 32  # jobs that are kept
MOST = 256  # jobs that wait; each has a thread, and one that is called off keeps it until the queue is free


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
    previews: Previews
    state: str = QUEUED
    doing: str = ""  # before the first step
    messages: Remarks = field(default_factory=Remarks)
    error: str = ""
    stopped: bool = False  # to be resumed later
    keep: bool = False  # it ends as if it were complete
    ended: threading.Event = field(default_factory=threading.Event)


_jobs: OrderedDict[str, Job] = OrderedDict()
_places = threading.BoundedSemaphore(MOST)
_lock = threading.Lock()  # of _jobs and of the jobs' states: requests and trainings have threads of their own


def start(request: TrainRequest) -> Job:
    """Checks a request and queues it. Raises UserError for what can be checked at once."""
    config, file = request.config(), request.target()
    for folder in request.folders():
        find_pictures(folder)
    Templates.load(config.templates)
    request.check_sampler()
    records = Records.in_own_folder(folders.run_folder(config.name)) if shared.opts.ti_train_records else None
    session, previews = Session(config, folders.embeddings(), records), Previews(config.preview_prompts)
    job = Job(progress.create_task_id("ti-train"), request, config, file, session, previews)
    with _lock:
        if any(other.file == file and not other.ended.is_set() for other in _jobs.values()):
            raise UserError(f"'{request.name}' is already being trained. Interrupt that training first.")
        if not _places.acquire(blocking=False):
            raise UserError(f"{MOST} trainings wait. Wait until some of them have ended.")
        _jobs[job.id] = job
        for old in [known for known in _jobs.values() if known.ended.is_set()][:-KEPT]:
            del _jobs[old.id]
        progress.add_task_to_queue(job.id)
    threading.Thread(target=_wait, args=(job,), name=job.id, daemon=True).start()
    return job


def active() -> list[Job]:
    """Jobs that wait or run, in the order of the queue."""
    with _lock:
        return [job for job in _jobs.values() if not job.ended.is_set()]


def current() -> Job | None:
    """The job that runs, else the next one in the queue, else the one that was started last."""
    with _lock:
        known = list(_jobs.values())
    return next((job for job in known if not job.ended.is_set()), known[-1] if known else None)


def find(job_id: str) -> Job | None:
    with _lock:
        return _jobs.get(job_id)


def request_of(job_id: str) -> TrainRequest | None:
    """The request of a job, also of an interrupted one from an earlier session. Raises UserError if it is running."""
    job = find(job_id)
    if job and not job.ended.is_set():
        raise UserError(f"The training of '{job.request.name}' has not ended: there is nothing to resume.")
    return job.request if job else unfinished.of_job(job_id)


def interrupt(job: Job) -> None:
    """Ends a job: after its current step, or at once if it is queued."""
    with _lock:
        job.stopped = True
        if job.state == QUEUED:
            job.state = INTERRUPTED
            progress.pending_tasks.pop(job.id, None)
            progress.finish_task(job.id)
            job.ended.set()
        elif job.state == RUNNING:
            shared.state.interrupt()  # also ends a preview that is being generated


def interrupt_running() -> None:
    """Before "Reload UI". The WebUI interrupts too, but any handler of its page that ends takes that back."""
    for job in active():
        if job.state == RUNNING:
            interrupt(job)


def stop_and_keep(job: Job) -> None:
    """Ends a job after its current step, and puts its embedding in place. Raises UserError if it has not begun."""
    with _lock:
        if job.state == QUEUED:
            raise UserError(f"The training of '{job.request.name}' has not begun: there is nothing to keep yet.")
        job.keep = True


def resume(request: TrainRequest) -> Job:
    """A new job that resumes the interrupted one with this request. Raises UserError."""
    return start(request.copy(update={"resume": True, "overwrite": False}))


def _wait(job: Job) -> None:
    """Trains when it is the job's turn in the WebUI's queue."""
    try:
        with call_queue.queue_lock:
            _work(job)
    finally:
        _places.release()


def _work(job: Job) -> None:
    with _lock:
        if job.ended.is_set():  # interrupted in the queue
            return
        job.state = RUNNING
    outcome = FAILED
    try:
        with _task_of_the_host(job) as ending:
            outcome, job.error = _outcome(job, ending)
    except Exception as error:  # of the host or of another extension; the training itself has ended
        log.exception("The clean-up after the training of '%s' failed", job.request.name)
        job.messages.append(f"The clean-up after the training failed: {_named(error)}")
    finally:
        with _lock:
            shared.state.interrupted = shared.state.stopping_generation = False
            job.state = outcome
            job.ended.set()


@contextmanager
def _task_of_the_host(job: Job) -> Iterator[ExitStack]:
    """Shows the job in the host's progress; yields what is to be done at its end, all of it whatever fails."""
    with ExitStack() as ending:
        ending.callback(devices.torch_gc)
        ending.callback(shared.state.end)
        ending.callback(progress.finish_task, job.id)
        shared.state.begin(job=job.id)
        progress.start_task(job.id)
        yield ending


def _outcome(job: Job, ending: ExitStack) -> tuple[str, str]:
    """How a training ended, and the error message if it failed."""
    try:
        _train(job, ending)
    except StopTraining:
        return INTERRUPTED, ""
    except UserError as error:
        return FAILED, str(error)
    except Exception as error:
        if is_out_of_memory(error):  # outside of training steps, such as in encoding the images
            return FAILED, out_of_memory_message(error)
        log.exception("The training of '%s' failed", job.request.name)
        return FAILED, _named(error)
    return DONE, ""


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error} (see the WebUI's console)"


def _train(job: Job, ending: ExitStack) -> None:
    """ending: gets what gives the model back to the host."""
    shared.state.job_count = job.config.steps
    _begins(job, "Loading the model")
    host = connect()
    host.preview_size = job.request.preview_width, job.request.preview_height
    ending.callback(_reload_embeddings, host, job.file)
    ending.callback(host.release_weights)
    _begins(job, "Encoding the images")
    dataset = load_dataset(host, job.request.folders(), job.config, job.messages)
    in_place = True  # whether what the run has saved is
    try:
        asked, keep = job.request, lambda: job.keep
        run = job.session.train(
            host, dataset, asked.resume, release=devices.torch_gc, stop=keep, replaces=asked.overwrite
        )
        with closing(run) as events:
            for event in events:
                if isinstance(event, Checkpoint):  # before, what is there may be of an earlier run
                    unfinished.keep(job.id, job.request)
                _show(job, event)
                if job.session.done is None and (job.stopped or _interrupted()):
                    raise StopTraining
    except (StopTraining, host.Interrupted):
        raise StopTraining from None
    except DiskError:
        in_place = False
        raise
    finally:
        _leave(job, in_place)


def _begins(job: Job, what: str) -> None:
    job.doing = shared.state.textinfo = what


def _leave(job: Job, in_place: bool) -> None:
    """Keeps the request of a run that can be resumed, and only that; tells what an interrupted one has saved."""
    done = job.session.done
    if done and done.complete:
        unfinished.forget(job.request.name)
    elif job.session.trained and in_place:
        with suppress(OSError):  # it must not hide why the run has ended
            unfinished.keep(job.id, job.request)
    if done is None and job.session.trained:
        job.messages.append(job.session.saved("with Resume"))


def _reload_embeddings(host: Any, file: Path) -> None:
    """Makes the embedding usable in prompts, as far as there is one."""
    if file.exists():
        host.reload_embeddings()


def _interrupted() -> bool:
    return bool(shared.state.interrupted or shared.state.stopping_generation)


def _show(job: Job, event: Event) -> None:
    match event:
        case Step():
            shared.state.job_no = event.step
            measured = job.session.validation_loss
            validation = f", validation loss {measured:#.4g}" if measured is not None else ""
            shared.state.textinfo = (
                f"Training '{job.request.name}': step {event.step} of {job.config.steps}{validation}"
            )
        case Preview():
            _keep_for_the_tab(job, event)
            shared.state.assign_current_image(event.image)
        case Warning():
            job.messages.append(event.message)
        case Done():
            log.info("Trained '%s' in %.0f s: %s. %s", job.config.name, event.seconds, event.path, event.why)


def _keep_for_the_tab(job: Job, preview: Preview) -> None:
    try:
        job.previews.add(preview)
    except (OSError, UserError) as error:  # the training goes on
        if (message := f"Previews are missing here: {error}") not in job.messages:
            job.messages.append(message)
