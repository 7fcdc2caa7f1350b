"""The TI Train tab: Train (settings on the left, progress on the right) and Embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..ti_train.errors import UserError
from . import chart, embeddings_tab, jobs, unfinished
from .fields import embedding_fields, more_fields, picture_fields, preview_fields, request_of, run_fields
from .scripts import script

REDRAW = 0.7  # seconds
RESUMED = "Resumed with the settings that this training was started with."


def build() -> list[tuple[gr.Blocks, str, str]]:
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Tabs(elem_id="ti_train_tabs"):
        with gr.TabItem("Train", elem_id="ti_train_train"):
            build_train()
        with gr.TabItem("Embeddings", elem_id="ti_train_embeddings") as item:
            embeddings_tab.build(item)
    return [(blocks, "TI Train", "ti_train")]


def build_train() -> None:
    with gr.Row():
        with gr.Column():
            fields = embedding_fields()
            name = fields["name"]
            fields |= picture_fields(name) | preview_fields(name) | run_fields()
            fields |= more_fields(fields)
        with gr.Column():
            with gr.Row():
                start = gr.Button("Train", variant="primary", min_width=90, elem_id="ti_train_start")
                interrupt = gr.Button("Interrupt", min_width=90, elem_id="ti_train_interrupt")
                resume = gr.Button("Resume", min_width=90, elem_id="ti_train_resume")
                show = gr.Button("Show running", min_width=90, elem_id="ti_train_show")
            with gr.Column(elem_id="ti_train_bar"):
                progress = gr.HTML("", elem_id="ti_train_progress")
            summary = gr.HTML("", elem_id="ti_train_summary")
            loss = gr.HTML(chart.WAITING, elem_id="ti_train_chart")
            gallery = gr.Gallery(
                label="Previews", elem_id="ti_train_previews", columns=4, height=320, object_fit="contain"
            )
    task = gr.Textbox(visible=False)
    outputs = [summary, loss, gallery]
    names, inputs = list(fields), [task, *fields.values()]

    def handler(begin: Any) -> Any:
        def run(task_id: str, *values: Any) -> Iterator[tuple[Any, ...]]:
            try:
                job = begin(dict(zip(names, values, strict=True)), task_id)
            except UserError as error:
                jobs.reject(task_id)
                yield chart.error_note(str(error)), gr.update(), gr.update()
                return
            yield from follow(job)

        return run

    hidden = {"show_progress": "hidden"}
    start.click(handler(train), inputs, outputs, **hidden, **script("ti_train_start"))
    resume.click(handler(resume_job), inputs, outputs, **hidden, **script("ti_train_start"))
    interrupt.click(interrupt_all, [], [progress], **hidden)
    show.click(follow_latest, [], outputs, **hidden)


def train(values: dict[str, Any], task_id: str) -> jobs.Job:
    return jobs.start(request_of(values, resuming=False), task_id)


def resume_job(values: dict[str, Any], task_id: str) -> jobs.Job:
    """Resumes by the embedding's name, with the saved settings of its training; else with the fields' values."""
    kept = unfinished.of_embedding(values["name"])
    if kept is None:
        return jobs.start(request_of(values, resuming=True), task_id)
    job = jobs.resume(kept, task_id)
    job.messages.append(RESUMED)
    return job


def follow(job: jobs.Job) -> Iterator[tuple[Any, ...]]:
    """Updates of summary, chart and previews until the job ends."""
    seen = -1
    while True:
        ended = job.ended.wait(REDRAW)
        previews: Any = gr.update()
        if len(job.previews) != seen:
            seen = len(job.previews)
            previews = [(p.image, f"step {p.step}: {p.prompt}") for p in job.previews]
        yield chart.summary(job), chart.chart(job), previews
        if ended:
            return


def follow_latest() -> Iterator[tuple[Any, ...]]:
    job = jobs.latest()
    if job is None:
        yield chart.error_note("No training has been started since the WebUI started."), gr.update(), gr.update()
        return
    yield from follow(job)


def interrupt_all() -> Any:
    for job in jobs.active():
        jobs.interrupt(job)
    return gr.update()
