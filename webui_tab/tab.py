"""The TI Train tab: Train (settings on the left, progress on the right) and Embeddings.

Every handler starts something and returns. The page asks again for as long as a training runs (javascript/ti_train.js).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ..ti_train.errors import UserError
from . import chart, embeddings_tab, jobs, unfinished
from .fields import embedding_fields, fill_from_preset, more_fields, request_of, run_fields, values_of_job, with_preset
from .picture_fields import picture_fields
from .preview_fields import preview_fields
from .request import check_resumable
from .scripts import hidden_button, script
from .turns import LOOK, turns

RESUMED = "Resumed with the settings that this training was started with."
NOTHING_RUNS = "This page shows no training that runs or waits. Show running finds the current one."
NOT_STARTED = "No training has been started since the WebUI started."
EARLIER = "earlier"  # the preset whose numbers the fields have got
HIDDEN = {"show_progress": "hidden"}


def build() -> list[tuple[gr.Blocks, str, str]]:
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Tabs(elem_id="ti_train_tabs"):
        with gr.TabItem("Train", elem_id="ti_train_train"):
            build_train(blocks)
        with gr.TabItem("Embeddings", elem_id="ti_train_embeddings") as item:
            embeddings_tab.build(item)
    return [(blocks, "TI Train", "ti_train")]


def build_train(blocks: gr.Blocks) -> None:
    with gr.Row():
        with gr.Column():
            fields = embedding_fields()
            name = fields["name"]
            fields |= picture_fields(name) | preview_fields(name) | run_fields()
            fields |= more_fields(fields)
            earlier = fill_from_preset(fields)
        with gr.Column():
            with gr.Row(elem_id="ti_train_buttons"):
                start = gr.Button("Train", variant="primary", min_width=112, elem_id="ti_train_start")
                keep = gr.Button("Stop and keep", min_width=112, elem_id="ti_train_keep")
                interrupt = gr.Button("Interrupt", min_width=112, elem_id="ti_train_interrupt")
                resume = gr.Button("Resume", min_width=112, elem_id="ti_train_resume")
                show = gr.Button("Show running", min_width=112, elem_id="ti_train_show")
            problem = gr.HTML("", elem_id="ti_train_problem")
            summary = gr.HTML("", elem_id="ti_train_summary")
            loss = gr.HTML(chart.WAITING, elem_id="ti_train_chart")
            gallery = gr.Gallery(
                label="Previews", elem_id="ti_train_previews", columns=4, height=320, object_fit="contain"
            )
    task = gr.Textbox(visible=False)  # id of the shown job, until it has ended
    seen = gr.Number(0, precision=0, visible=False)  # previews that the page has been sent
    shown = [seen, summary, loss, gallery]
    names, inputs = list(fields), list(fields.values())
    filled = [*inputs, earlier]

    def follow(event: Any) -> None:
        event.then(None, [task], [], **script("ti_train_follow"))

    begun = [problem, task, *shown]
    follow(start.click(beginning(train, [*names, EARLIER]), filled, begun, **HIDDEN))
    follow(resume.click(beginning(resume_job, names, filled=True), inputs, [*begun, *filled], **HIDDEN))
    follow(show.click(show_current, [], begun, **HIDDEN))
    for button, end in ((interrupt, jobs.interrupt), (keep, jobs.stop_and_keep)):
        button.click(ending(end), [task], [problem], **HIDDEN)
    follow(blocks.load(lambda: restored(names), [], [task, *shown, *filled], **HIDDEN))
    look = hidden_button("ti_train_look")
    look.click(look_at, [task, seen], shown, queue=False, **HIDDEN)


def beginning(
    begin: Callable[[dict[str, Any]], jobs.Job], names: list[str], filled: bool = False
) -> Callable[..., tuple[Any, ...]]:
    """A handler that starts a job, or reports why not. filled: whether it fills the fields with the job's settings."""

    def handler(*values: Any) -> tuple[Any, ...]:
        try:
            job = begin(dict(zip(names, values, strict=True)))
        except UserError as error:
            return chart.error_note(str(error)), *unchanged(5 + filled * (len(names) + 1))
        return "", *first_look(job), *(settings_of(job, names) if filled else ())

    return handler


def train(values: dict[str, Any]) -> jobs.Job:
    earlier = values.pop(EARLIER)
    return jobs.start(request_of(with_preset(values, earlier), resuming=False))


def resume_job(values: dict[str, Any]) -> jobs.Job:
    """Resumes by the embedding's name, with the saved settings of its training; else with the fields' values."""
    kept = unfinished.of_embedding(values["name"])
    if kept is None:
        check_resumable(values["name"])
        return jobs.start(request_of(values, resuming=True))
    job = jobs.resume(kept)
    job.messages.append(RESUMED)
    return job


def show_current() -> tuple[Any, ...]:
    job = jobs.current()
    return ("", *first_look(job)) if job else (chart.error_note(NOT_STARTED), *unchanged(5))


def restored(names: list[str]) -> tuple[Any, ...]:
    """What a page that was loaded anew shows: the current job, with its settings in the fields."""
    job = jobs.current()
    if job is None:
        return unchanged(6 + len(names))
    return *first_look(job), *settings_of(job, names)


def settings_of(job: jobs.Job, names: list[str]) -> tuple[Any, ...]:
    """A job's settings for the fields, and its preset."""
    values = values_of_job(job)
    return *(gr.update(value=values[name]) for name in names), job.request.preset


def first_look(job: jobs.Job) -> tuple[Any, ...]:
    """The id that the page asks about, and what it shows."""
    return "" if job.ended.is_set() else job.id, *look_of(job, -1)


def look_at(task: str, seen: int) -> tuple[Any, ...]:
    job = jobs.find(task)
    return look_of(job, seen) if job else unchanged(4)


def look_of(job: jobs.Job, seen: int) -> tuple[Any, ...]:
    """The number of previews, the summary, the chart and, if there are new ones, the previews."""
    now = job.previews.seen
    previews = gr.update() if now == seen else job.previews.shown()
    return now, chart.summary(job, turns.next(LOOK)), chart.chart(job), previews


def ending(end: Callable[[jobs.Job], None]) -> Callable[[str], str]:
    """A handler that ends the job that this page shows, and no other."""

    def handler(task: str) -> str:
        job = jobs.find(task)
        try:
            if job is None or job.ended.is_set():
                raise UserError(NOTHING_RUNS)
            end(job)
        except UserError as error:
            return chart.error_note(str(error))
        return ""

    return handler


def unchanged(count: int) -> tuple[Any, ...]:
    return tuple(gr.update() for _ in range(count))
