"""The tab: settings on the left, the training on the right; the words of the embeddings folder in a tab beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..ti_train.config import PRESETS
from ..ti_train.errors import UserError
from ..ti_train.prompts import BUILT_IN
from . import chart, embeddings_tab, folders, jobs, pictures
from .request import TrainRequest

OF_THE_PRESET = "the preset's"
REDRAW = 0.7  # seconds
GRADIO = int(gr.__version__.partition(".")[0])
JS = "js" if GRADIO >= 4 else "_js"


def script(call: str) -> dict[str, str]:
    """An event's script, under the name that this gradio has for it."""
    return {JS: call}


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
            fields = word_fields()
            fields |= picture_fields(fields["name"]) | preview_fields() | advanced_fields()
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

    def train(resuming: bool) -> Any:
        def handler(task_id: str, *values: Any) -> Iterator[tuple[Any, ...]]:
            try:
                request = request_of(dict(zip(names, values, strict=True)), resuming)
                job = jobs.start(request, task_id)
            except UserError as error:
                jobs.refused(task_id)
                yield chart.mistake(str(error)), gr.update(), gr.update()
                return
            yield from follow(job)

        return handler

    hidden = {"show_progress": "hidden"}
    start.click(train(False), inputs, outputs, **hidden, **script("ti_train_start"))
    resume.click(train(True), inputs, outputs, **hidden, **script("ti_train_start"))
    interrupt.click(interrupt_all, [], [progress], **hidden)
    show.click(follow_latest, [], outputs, **hidden)


def word_fields() -> dict[str, Any]:
    with gr.Row():
        name = gr.Textbox(
            "my-word", label="Name", info="How you will write the word in prompts.", elem_id="ti_train_name"
        )
        init = gr.Textbox(
            "object",
            label="Initial text",
            info="What the pictures show, in plain words ('cat', 'painting'), or name.safetensors to go on from.",
            elem_id="ti_train_init",
        )
    with gr.Row():
        preset = gr.Dropdown(
            list(reversed(PRESETS)),
            value="Balanced",
            label="Preset",
            info="Values of all that is left at 0 or empty.",
            elem_id="ti_train_preset",
        )
        vectors = gr.Slider(
            1,
            75,
            1,
            step=1,
            label="Vectors",
            info="One is easiest to edit; more copy more.",
            elem_id="ti_train_vectors",
        )
    with gr.Row():
        steps = gr.Number(
            0, label="Steps", info="0: the preset's. More: closer.", precision=0, elem_id="ti_train_steps"
        )
        rate = gr.Textbox(
            "",
            label="Learning rate",
            info="Empty: the preset's. A number, or 5e-3:100, 1e-3",
            placeholder=OF_THE_PRESET,
            elem_id="ti_train_rate",
        )
    return {
        "name": name,
        "init": init,
        "preset": preset,
        "num_vectors": vectors,
        "steps": steps,
        "learning_rate": rate,
    }


def picture_fields(name: Any) -> dict[str, Any]:
    with gr.Row():
        with gr.Column(min_width=200):
            folder = gr.Dropdown(
                folders.picture_folders(),
                label="Pictures",
                info="A folder below ti-train/pictures with 3 to 5 pictures; or drop them here beside.",
                elem_id="ti_train_folder",
                allow_custom_value=True,
            )
            refresh = gr.Button("Look for folders again", size="sm", elem_id="ti_train_refresh_folders")
        upload = gr.File(
            label="Upload pictures", file_count="multiple", file_types=["image"], elem_id="ti_train_upload", height=150
        )
    thumbnails = gr.Gallery(
        label="Pictures", elem_id="ti_train_thumbnails", columns=5, height=190, object_fit="contain", visible=False
    )
    with gr.Accordion("Captions", open=False):
        captions = gr.Dataframe(
            headers=["picture", "caption"],
            datatype=["str", "str"],
            type="array",
            col_count=(2, "fixed"),
            label="What each picture shows besides the word; used by templates with [filewords]",
            elem_id="ti_train_captions",
            interactive=True,
        )
        with gr.Row():
            write = gr.Button("Write captions beside the pictures", elem_id="ti_train_write_captions")
            written = gr.HTML("")
    templates = gr.Dropdown(
        [OF_THE_PRESET, *BUILT_IN, *folders.template_files()],
        value=OF_THE_PRESET,
        label="Templates",
        info="The sentences that the word is learnt in; 'captions' puts each picture's caption into them.",
        elem_id="ti_train_templates",
    )
    seen = [thumbnails, captions, written]
    folder.change(show_folder, [folder], seen)
    refresh.click(lambda: gr.update(choices=folders.picture_folders()), [], [folder])
    upload.upload(upload_pictures, [upload, name], [folder, *seen])
    write.click(save_captions, [folder, captions], [written])
    return {"pictures": folder, "templates": templates}


def preview_fields() -> dict[str, Any]:
    with gr.Row():
        prompts = gr.Textbox(
            "a photo of *",
            lines=2,
            label="Preview prompts",
            info="One a line; * is the word. The same seed each time, the untrained word first.",
            elem_id="ti_train_preview_prompts",
        )
        every = gr.Number(
            0, label="Preview every", info="Steps; 0: no previews.", precision=0, elem_id="ti_train_preview_every"
        )
    return {"preview_prompts": prompts, "preview_every": every}


def advanced_fields() -> dict[str, Any]:
    with gr.Row():
        seed = gr.Number(
            0, label="Seed", info="The same seed learns the same word.", precision=0, elem_id="ti_train_seed"
        )
        overwrite = gr.Checkbox(
            False, label="Overwrite", info="Replace a word of this name.", elem_id="ti_train_overwrite"
        )
    with gr.Accordion("More", open=False), gr.Row():
        batch = gr.Number(
            0, label="Pictures a step", info="0: the preset's.", precision=0, elem_id="ti_train_batch_size"
        )
        resolution = gr.Number(
            0, label="Resolution", info="Side in pixels; 0: the model's.", precision=0, elem_id="ti_train_resolution"
        )
        flip = gr.Checkbox(False, label="Mirror", info="Not for text or faces.", elem_id="ti_train_flip")
        checkpointing = gr.Checkbox(
            False,
            label="Gradient checkpointing",
            info="Less memory for a third more time.",
            elem_id="ti_train_checkpointing",
        )
    return {
        "seed": seed,
        "overwrite": overwrite,
        "batch_size": batch,
        "resolution": resolution,
        "flip": flip,
        "gradient_checkpointing": checkpointing,
    }


def request_of(values: dict[str, Any], resuming: bool) -> TrainRequest:
    """What the fields say; 0, empty and "the preset's" leave a value to the preset. Raises UserError."""
    if not values["pictures"]:
        raise UserError("No pictures are chosen. Choose a folder, or upload 3 to 5 pictures.")
    given = dict(values)
    for key in ("steps", "batch_size", "learning_rate"):
        given[key] = given[key] or None
    if given["templates"] == OF_THE_PRESET:
        given["templates"] = None
    given["preview_prompts"] = [line for line in given["preview_prompts"].splitlines() if line.strip()]
    try:
        return TrainRequest(**given, resume=resuming)
    except ValueError as error:  # pydantic's, whose words differ by version
        raise UserError(f"A field has a value that cannot be: {error}") from None


def follow(job: jobs.Job) -> Iterator[tuple[Any, ...]]:
    """What there is to see, again and again until the job has ended."""
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
        yield chart.mistake("No training has been started since the WebUI was."), gr.update(), gr.update()
        return
    yield from follow(job)


def interrupt_all() -> Any:
    for job in jobs.active():
        jobs.interrupt(job)
    return gr.update()


def show_folder(folder: str) -> tuple[Any, Any, str]:
    try:
        thumbnails, captions = pictures.shown(folder)
    except UserError as error:
        return gr.update(visible=False), [], chart.mistake(str(error))
    return gr.update(value=thumbnails, visible=bool(thumbnails)), captions, ""


def upload_pictures(files: list[Any], name: str) -> tuple[Any, ...]:
    try:
        folder = pictures.uploaded(files, name)
    except UserError as error:
        return gr.update(), gr.update(), [], chart.mistake(str(error))
    return gr.update(choices=folders.picture_folders(), value=folder), *show_folder(folder)


def save_captions(folder: str, rows: list[list[str]]) -> str:
    try:
        count = pictures.write_captions(folder, rows)
    except (UserError, OSError) as error:
        return chart.mistake(str(error))
    return f"<div class='ti-train-note'>{count} caption(s) written.</div>"
