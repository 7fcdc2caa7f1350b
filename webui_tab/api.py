"""The API at /ti-train/v1, listed in the WebUI's /docs when it runs with --api; --api-auth applies."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable
from inspect import iscoroutinefunction
from secrets import compare_digest
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import shared
from pydantic import BaseModel, Field

from ..ti_train.errors import UserError
from ..ti_train.other_sites import REFUSED, from_another_site
from . import embedding_files, jobs, unfinished
from .exports import ConvertRequest, MergeRequest, Written, convert, merged  # noqa: F401 - FastAPI reads them here
from .request import Request, TrainRequest
from .turns import MEASUREMENT, STATUS, turns

PREFIX = "/ti-train/v1"
MOST = 10_000  # steps in an answer
ERROR_RESPONSES = {
    400: {"description": "The request is invalid. The message says why and how to fix it."},
    403: {"description": "The request is from a page of another site."},
    404: {"description": "There is no such id."},
}


class JobId(Request):
    id: str = Field(description="As returned by train or resume.")


class Interrupted(Request):
    id: str | None = Field(
        default=None, description="As returned by train or resume, also before a restart of the WebUI."
    )
    name: str | None = Field(default=None, description="Name of the embedding; alternative to id.")


class Measurement(BaseModel):
    step: int
    loss: float | None = Field(default=None, description="Training loss of the step; noisy.")
    noise_free_loss: float | None = Field(
        default=None, description="Validation loss: computed on the same images, noise and timesteps every time."
    )


class Status(BaseModel):
    id: str
    name: str = Field(description="Name of the embedding.")
    state: str = Field(description="queued, running, done (also if stopped and kept), interrupted or failed.")
    step: int = Field(description="Completed steps.")
    steps: int
    loss: float | None = Field(default=None, description="Training loss of the last step; noisy.")
    noise_free_loss: float | None = Field(
        default=None,
        description="Watch the validation loss: it is computed on the same images, noise and timesteps every time.",
    )
    seconds: float = Field(description="Time spent in training steps.")
    seconds_left: float | None = Field(default=None, description="Estimated from the steps so far.")
    messages: list[str] = Field(description="Warnings and notes for the user.")
    error: str = Field(description="Why the job failed; empty otherwise.")
    file: str = Field(description="Path of the embedding.")
    history: list[Measurement] = Field(
        description=f"The steps, if requested: {MOST} at most. Ask for the others with since = the last one's + 1."
    )
    ask_again: float = Field(
        description="Seconds after which to ask again: one at least, and more the more clients ask. Whoever waits as "
        "long as this costs the training next to nothing."
    )


class EmbeddingFile(BaseModel):
    name: str = Field(description="Name to use in prompts.")
    file: str = Field(description="Path in the embeddings folder.")
    layout: str | None = Field(default=None, description="Layout of the file.")
    vectors: int | None = None
    widths: list[int] | None = Field(default=None, description="Vector width for each text encoder.")
    step: int | None = Field(default=None, description="Number of training steps.")
    problem: str | None = Field(default=None, description="Why the file cannot be read.")


class EmbeddingInfo(BaseModel):
    name: str
    text: str = Field(description="Vectors, their norms and nearest words in the loaded model, training settings.")


def train(request: TrainRequest) -> JobId:
    """Queues a training job behind the queued generations, and returns at once."""
    return JobId(id=jobs.start(request).id)


async def status(
    id: str = Query(description="Id of the job."),
    history: bool = Query(default=False, description="Whether to answer with the steps too."),
    since: int = Query(default=0, description=f"First step of the history, which has {MOST} at most."),
) -> Status | Response:
    job = job_of(id)
    if not history:  # from memory, without the other routes' way through a thread: it is polled
        return status_of(job)
    return await run_in_threadpool(with_history, job, since)


def interrupt(job: JobId) -> Status:
    """Stops a job after the current step, or at once if it is queued. Resume continues from the last step."""
    found = job_of(job.id)
    jobs.interrupt(found)
    return status_of(found)


def stop_and_keep(job: JobId) -> Status:
    """Ends a job after the current step, as if it were complete: its embedding is put in place. It can be resumed."""
    found = job_of(job.id)
    jobs.stop_and_keep(found)
    return status_of(found)


def resume(job: Interrupted) -> JobId:
    """A new job that resumes an interrupted one, with the same result as without the interruption."""
    if job.id:
        request = jobs.request_of(job.id)
        if request is None:
            raise HTTPException(404, f"There is no job '{job.id}'. Resume by the name of its embedding.")
    elif job.name:
        request = unfinished.of_embedding(job.name)
        if request is None:
            raise UserError(f"There is nothing to resume: no training of '{job.name}' was interrupted. Use train.")
    else:
        raise UserError("Give the id of the job, or the name of its embedding.")
    return JobId(id=jobs.resume(request).id)


def list_embeddings() -> list[EmbeddingFile]:
    """Lists the embeddings folder, in any layout."""
    return [EmbeddingFile(**row) for row in embedding_files.listed()]


def info(
    name: str = Query(description="Name of the embedding, or its file in the embeddings folder."),
    which: str | None = Query(default=None, description="Which embedding to use, if a file holds several."),
) -> EmbeddingInfo:
    """Vectors, nearest words (unless a training or captioning uses the model) and training settings of an embedding."""
    return EmbeddingInfo(name=name, text=embedding_files.report(name, which))


def refresh() -> list[EmbeddingFile]:
    """Reloads the embeddings folder for prompts; if a training or captioning runs or waits, after it."""
    embedding_files.reload()
    return list_embeddings()


def job_of(job_id: str) -> jobs.Job:
    job = jobs.find(job_id)
    if job is None:
        raise HTTPException(404, f"There is no job '{job_id}'.")
    return job


def with_history(job: jobs.Job, since: int) -> Response:
    """The state with the steps from `since` on: as text, since models of so many would take ten times as long."""
    steps = job.session.steps
    first = bisect_left(steps, since, key=lambda step: step.step)
    history = [
        {"step": step.step, "loss": step.loss, "noise_free_loss": step.validation_loss}
        for step in steps[first : first + MOST]
    ]
    return JSONResponse(status_of(job, len(history)).dict() | {"history": history})


def status_of(job: jobs.Job, measurements: int = 0) -> Status:
    """The state without its history. measurements: how many of that are sent with it."""
    session, steps = job.session, job.session.steps
    last = steps[-1] if steps else None
    return Status(
        id=job.id,
        name=job.request.name,
        state=job.state,
        step=last.step if last else 0,
        steps=job.config.steps,
        loss=session.loss,
        noise_free_loss=session.validation_loss,
        seconds=last.seconds if last else 0.0,
        seconds_left=session.pace.seconds_left,
        messages=list(job.messages),
        error=job.error,
        file=str(session.file),
        history=[],
        ask_again=round(turns.next(STATUS + measurements * MEASUREMENT), 2),
    )


async def of_this_site(request: HttpRequest) -> None:
    """Closes a route that changes something to pages of other sites, whose browser may know the name and password."""
    if from_another_site(request.headers):
        raise HTTPException(403, REFUSED)


async def authorised(credentials: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:  # noqa: B008
    """Checks the names and passwords of --api-auth."""
    for pair in shared.cmd_opts.api_auth.split(","):
        user, _, password = pair.partition(":")
        if compare_digest(user.encode(), credentials.username.encode()) and compare_digest(
            password.encode(), credentials.password.encode()
        ):
            return
    raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Basic"})


def user_errors_as_400(function: Callable[..., Any]) -> Callable[..., Any]:
    """A route that answers UserErrors with status 400. (The app's exception handlers can no longer be added here.)"""

    @functools.wraps(function)
    def route(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise HTTPException(400, str(error)) from None

    return route


def add_routes(_demo: Any, app: FastAPI) -> None:
    if not shared.cmd_opts.api:
        return
    guards = [Depends(authorised)] if shared.cmd_opts.api_auth else []
    for function, name, method, answer in (
        (train, "train", "POST", JobId),
        (status, "status", "GET", Status),
        (interrupt, "interrupt", "POST", Status),
        (stop_and_keep, "stop-and-keep", "POST", Status),
        (resume, "resume", "POST", JobId),
        (list_embeddings, "list", "GET", list[EmbeddingFile]),
        (info, "info", "GET", EmbeddingInfo),
        (refresh, "refresh", "POST", list[EmbeddingFile]),
        (convert, "convert", "POST", Written),
        (merged, "merge", "POST", Written),
    ):
        app.add_api_route(
            f"{PREFIX}/{name}",
            function if iscoroutinefunction(function) else user_errors_as_400(function),
            methods=[method],
            response_model=answer,
            responses=ERROR_RESPONSES,
            dependencies=[*guards, Depends(of_this_site)] if method == "POST" else guards,
            tags=["TI Train"],
            summary=f"{name.capitalize()} (textual inversion)",
        )
