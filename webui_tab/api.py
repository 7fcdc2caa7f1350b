"""The API below /ti-train/v1, in the WebUI's own /docs when it runs with --api; --api-auth holds here too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from secrets import compare_digest
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import shared
from pydantic import BaseModel, Field

from ..ti_train.errors import UserError
from . import jobs, unfinished, words
from .exports import ConvertRequest, MergeRequest, Written, convert, merged  # noqa: F401 - FastAPI asks here
from .request import TrainRequest

PREFIX = "/ti-train/v1"
FAULTS = {400: {"description": "What is wrong and how to mend it."}, 404: {"description": "There is no such id."}}


class JobId(BaseModel):
    id: str = Field(description="What train or resume answered.")


class Interrupted(BaseModel):
    id: str | None = Field(
        default=None, description="What train or resume answered, before a restart of the WebUI too."
    )
    name: str | None = Field(default=None, description="Or the word.")


class Measure(BaseModel):
    step: int
    loss: float | None = Field(default=None, description="Of the step; noisy.")
    noise_free_loss: float | None = Field(default=None, description="On one batch that never changes.")


class Status(BaseModel):
    id: str
    name: str = Field(description="The word.")
    state: str = Field(description="queued, running, done, interrupted or failed.")
    step: int = Field(description="Completed steps; the rest of the run is steps - step.")
    steps: int
    loss: float | None = Field(default=None, description="Of the last step; noisy.")
    noise_free_loss: float | None = Field(default=None, description="The number to watch.")
    seconds: float = Field(description="Spent in steps.")
    seconds_left: float | None = Field(default=None, description="As far as the steps so far tell.")
    messages: list[str] = Field(description="What the user should know, in words.")
    error: str = Field(description="Why it failed; empty otherwise.")
    file: str = Field(description="Where the word is.")
    history: list[Measure] = Field(description="Every step, if it was asked for.")


class Word(BaseModel):
    name: str = Field(description="As prompts write it.")
    file: str = Field(description="Within the embeddings folder.")
    layout: str | None = Field(default=None, description="Of the file, in words.")
    vectors: int | None = None
    widths: list[int] | None = Field(default=None, description="Of each text encoder's vectors.")
    step: int | None = Field(default=None, description="Steps that it was trained for.")
    problem: str | None = Field(default=None, description="Why it cannot be read.")


class Told(BaseModel):
    name: str
    text: str = Field(description="Vectors, their lengths and nearest words in the loaded model, settings.")


def train(request: TrainRequest) -> JobId:
    """Queues a training and answers at once; it waits its turn behind the generations that are queued."""
    return JobId(id=jobs.start(request).id)


def status(id: str = Query(description="Of the job."), history: bool = False) -> Status:
    return status_of(job_of(id), history)


def interrupt(job: JobId) -> Status:
    """Ends a job after its step: its best embedding so far is kept, and resume goes on from the last step."""
    found = job_of(job.id)
    jobs.interrupt(found)
    return status_of(found, False)


def resume(job: Interrupted) -> JobId:
    """A new job that goes on with an interrupted one, to the result that it would have had."""
    if job.id:
        request = jobs.request_of(job.id)
        if request is None:
            raise HTTPException(404, f"There is no job '{job.id}'; resume by the name of its word.")
    elif job.name:
        request = unfinished.of_word(job.name)
        if request is None:
            raise UserError(f"There is nothing to resume: no training of '{job.name}' was interrupted. Use train.")
    else:
        raise UserError("Give the id of the job, or the name of its word.")
    return JobId(id=jobs.resume(request).id)


def list_words() -> list[Word]:
    """The words of the embeddings folder, in any layout."""
    return [Word(**row) for row in words.listed()]


def info(
    name: str = Query(description="Of the word, or its file in the embeddings folder."),
    which: str | None = Query(default=None, description="Which word, where a file holds several."),
) -> Told:
    return Told(name=name, text=words.told(name, which))


def refresh() -> list[Word]:
    """Has prompts know every word of the embeddings folder, those put there by hand too."""
    words.reread()
    return list_words()


def job_of(job_id: str) -> jobs.Job:
    try:
        return jobs.find(job_id)
    except KeyError:
        raise HTTPException(404, f"There is no job '{job_id}'.") from None


def status_of(job: jobs.Job, history: bool) -> Status:
    session, steps = job.session, job.session.steps
    last = steps[-1] if steps else None
    measures = [Measure(step=s.step, loss=s.loss, noise_free_loss=s.validation_loss) for s in steps] if history else []
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
        file=str(job.file),
        history=measures,
    )


def authorised(credentials: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:  # noqa: B008
    """The names and passwords of --api-auth."""
    for pair in shared.cmd_opts.api_auth.split(","):
        user, _, password = pair.partition(":")
        if compare_digest(user.encode(), credentials.username.encode()) and compare_digest(
            password.encode(), credentials.password.encode()
        ):
            return
    raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Basic"})


def mistakes_as_400(function: Callable[..., Any]) -> Callable[..., Any]:
    """A route whose UserErrors reach the caller in words. (It is too late for the app's own exception handlers.)"""

    @functools.wraps(function)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise HTTPException(400, str(error)) from None

    return told


def add_routes(_demo: Any, app: FastAPI) -> None:
    if not shared.cmd_opts.api:
        return
    guards = [Depends(authorised)] if shared.cmd_opts.api_auth else []
    for function, name, method, answer in (
        (train, "train", "POST", JobId),
        (status, "status", "GET", Status),
        (interrupt, "interrupt", "POST", Status),
        (resume, "resume", "POST", JobId),
        (list_words, "list", "GET", list[Word]),
        (info, "info", "GET", Told),
        (refresh, "refresh", "POST", list[Word]),
        (convert, "convert", "POST", Written),
        (merged, "merge", "POST", Written),
    ):
        app.add_api_route(
            f"{PREFIX}/{name}",
            mistakes_as_400(function),
            methods=[method],
            response_model=answer,
            responses=FAULTS,
            dependencies=guards,
            tags=["TI Train"],
            summary=f"{name.capitalize()} (textual inversion)",
        )
