"""The fields of a training on the tab, by the names that the request has for them."""

from __future__ import annotations

import re
from typing import Any, get_args

import gradio as gr

from ..ti_train.data.masks import Source
from ..ti_train.errors import UserError
from ..ti_train.prompts import BUILT_IN, WORD
from ..ti_train.training.config import PRESETS
from . import chart, folders, pictures
from .request import TrainRequest
from .scripts import script

OF_THE_PRESET = "the preset's"
KEEP, SQUARE = "keep proportions", "square"
Fields = dict[str, Any]


def number(name: str, label: str, info: str, value: float = 0, precision: int | None = 0) -> Any:
    return gr.Number(value, label=label, info=info, precision=precision, elem_id=f"ti_train_{name}")


def switch(name: str, label: str, info: str) -> Any:
    return gr.Checkbox(False, label=label, info=info, elem_id=f"ti_train_{name}")


def choice(name: str, label: str, info: str, choices: list[str], value: str) -> Any:
    return gr.Dropdown(choices, value=value, label=label, info=info, elem_id=f"ti_train_{name}")


def text(name: str, label: str, info: str, value: str = "", **further: Any) -> Any:
    return gr.Textbox(value, label=label, info=info, elem_id=f"ti_train_{name}", **further)


def heading(words: str) -> None:
    gr.HTML(f"<div class='ti-train-heading'>{words}</div>")


def word_fields() -> Fields:
    fields = {}
    with gr.Row():
        fields["name"] = text("name", "Name", "How you will write the word in prompts.", "my-word")
        fields["init"] = text(
            "init",
            "Initial text",
            "What the pictures show, in plain words ('cat', 'painting'), or a file of the embeddings folder.",
            "object",
        )
    with gr.Row():
        about = "Values of all that is left at 0 or empty."
        fields["preset"] = choice("preset", "Preset", about, list(reversed(PRESETS)), "Balanced")
        fields["num_vectors"] = gr.Slider(
            1,
            75,
            1,
            step=1,
            label="Vectors",
            info="One is easiest to edit; more copy more.",
            elem_id="ti_train_vectors",
        )
    with gr.Row():
        fields["steps"] = number("steps", "Steps", "0: the preset's. More: closer.")
        fields["learning_rate"] = text(
            "rate",
            "Learning rate",
            "Empty: the preset's. A number, or 5e-3:100, 1e-3",
            placeholder=OF_THE_PRESET,
        )
    return fields


def picture_fields(name: Any) -> Fields:
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
            label="Upload pictures and masks",
            file_count="multiple",
            file_types=["image"],
            elem_id="ti_train_upload",
            height=150,
        )
    thumbnails = gr.Gallery(
        label="Pictures", elem_id="ti_train_thumbnails", columns=5, height=190, object_fit="contain", visible=False
    )
    note = gr.HTML("", elem_id="ti_train_pictures_note")
    with gr.Row():
        mask = choice(
            "mask",
            "Masks",
            "files: the white of NAME-mask.png or masks/NAME.png is learnt. alpha: else what is not transparent.",
            list(get_args(Source)),
            "files",
        )
        templates = choice(
            "templates",
            "Templates",
            "The sentences that the word is learnt in. captions and style-captions add each picture's caption.",
            [OF_THE_PRESET, *BUILT_IN, *folders.template_files()],
            OF_THE_PRESET,
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
            write = gr.Button("Write captions beside the pictures", size="sm", elem_id="ti_train_write_captions")
            written = gr.HTML("", elem_id="ti_train_captions_written")
        fields = tag_fields()
    seen = [thumbnails, captions, note]
    folder.change(show_folder, [folder, mask], seen)
    mask.change(show_folder, [folder, mask], seen)
    refresh.click(lambda: gr.update(choices=folders.picture_folders()), [], [folder])
    upload.upload(upload_pictures, [upload, name, folder, mask], [folder, *seen])
    write.click(save_captions, [folder, captions, mask], [written, note])
    return {"pictures": folder, "mask": mask, "templates": templates} | fields


def tag_fields() -> Fields:
    with gr.Row():
        shuffle = switch("shuffle_tags", "Shuffle tags", "A caption's comma-separated tags in a new order each time.")
        drop = gr.Slider(
            0,
            0.95,
            0,
            step=0.05,
            label="Drop tags",
            info="Probability with which each is left out.",
            elem_id="ti_train_drop_tags",
        )
        keep = number("keep_tags", "Keep tags", "At the beginning: neither shuffled nor left out.")
    return {"shuffle_tags": shuffle, "drop_tags": drop, "keep_tags": keep}


def preview_fields(name: Any) -> Fields:
    about = "One a line; * is the word. The same seed each time, the untrained word first."
    with gr.Row():
        with gr.Column(scale=2, min_width=200):
            prompts = text("preview_prompts", "Preview prompts", about, "a photo of *", lines=2)
            take = gr.Button("From txt2img", size="sm", elem_id="ti_train_from_txt2img")
        with gr.Column(min_width=120):
            every = number("preview_every", "Preview every", "Steps; 0: no previews.")
    with gr.Row():
        with gr.Column(scale=2, min_width=200):
            negative = text("preview_negative", "Negative prompt of previews", "What they should not show.")
        with gr.Column(min_width=120):
            seed = number("preview_seed", "Preview seed", "-1: the training's.", -1)
    of_txt2img = [prompts, negative, seed]
    take.click(from_txt2img, [name, *of_txt2img], of_txt2img, **script("ti_train_of_txt2img"))
    return {
        "preview_prompts": prompts,
        "preview_every": every,
        "preview_negative": negative,
        "preview_seed": seed,
    }


def run_fields() -> Fields:
    with gr.Row():
        seed = number(
            "seed", "Seed", "The same seed learns the same word; on a GPU but for rounding (see Deterministic)."
        )
        overwrite = switch("overwrite", "Overwrite", "Replace a word of this name.")
    return {"seed": seed, "overwrite": overwrite}


def more_fields() -> Fields:
    """What most trainings leave alone."""
    fields: Fields = {}
    with gr.Accordion("More", open=False):
        heading("Pictures")
        with gr.Row():
            about = (
                "keep proportions: nearly all of a picture. square: its middle. The preset's: keep; square for Paper."
            )
            fields["square"] = choice("crop", "Crop", about, [OF_THE_PRESET, KEEP, SQUARE], OF_THE_PRESET)
            about = "Side in pixels of a square picture; others have as many pixels. 0: the model's own."
            fields["resolution"] = number("resolution", "Resolution", about)
        with gr.Row():
            about = "One a line; FOLDER:3 comes three times as often."
            fields["more_pictures"] = text("more_pictures", "Further folders", about, lines=2)
            about = "Learn mirrored copies too. Wrong for text and for what has a left and a right."
            fields["flip"] = switch("flip", "Mirror", about)
        heading("Steps")
        with gr.Row():
            about = "0: the preset's (Balanced and Style 4, Paper 1). Fewer need less memory."
            fields["batch_size"] = number("batch_size", "Pictures a pass", about)
            about = "1 picture with 4 passes learns as 4 with 1, in less memory."
            fields["accumulation"] = number("accumulation", "Passes a step", about, 1)
        with gr.Row():
            about = "How the learning rate goes on. linear: down to 0, which averages the noise away."
            schedules = [OF_THE_PRESET, "linear", "constant"]
            fields["schedule"] = choice("schedule", "Schedule", about, schedules, OF_THE_PRESET)
            fields["warmup"] = number("warmup", "Warm-up", "Steps in which the rate rises. 0: none is needed.")
            about = "Longest gradient of a step, as an L2 norm; 0: no limit."
            fields["gradient_clip"] = number("gradient_clip", "Gradient clip", about, 1, None)
        heading("Memory and saving")
        with gr.Row():
            about = "Less memory, a third slower. Switched on by itself when the memory is full."
            fields["gradient_checkpointing"] = switch("checkpointing", "Gradient checkpointing", about)
            about = "Steps between two saves, against power cuts; Interrupt saves in any case."
            fields["checkpoint_every"] = number("checkpoint_every", "Save every", about, 100)
        about = "On a GPU too, the same digits every time, where PyTorch has kernels for it: slower."
        fields["deterministic"] = switch("deterministic", "Deterministic", about)
        heading("The paper's ablations")
        with gr.Row():
            about = "Steps between two of the word's vectors that join in; 0: all from the start."
            fields["progressive_every"] = number("progressive_every", "Progressive vectors", about)
            about = "Probability of a prompt that also names a word of its picture alone. The paper: 0.25."
            fields["per_image_words"] = number("per_image_words", "Words of single pictures", about, 0, None)
            about = "Weight of the squared distance to the start in the loss: nearer is easier to edit."
            fields["coarse_weight"] = number("coarse_weight", "Pull towards the start", about, 0, None)
    return fields


def request_of(values: dict[str, Any], resuming: bool) -> TrainRequest:
    """What the fields say; 0, empty and "the preset's" leave a value to the preset. Raises UserError."""
    if not values["pictures"]:
        raise UserError("No pictures are chosen. Choose a folder, or upload 3 to 5 pictures.")
    given = {key: value for key, value in values.items() if value not in (None, OF_THE_PRESET)}
    for key in ("steps", "batch_size", "learning_rate"):
        given[key] = given.get(key) or None
    if "square" in given:
        given["square"] = given["square"] == SQUARE
    if given.get("preview_seed", -1) < 0:
        given["preview_seed"] = None
    for key in ("preview_prompts", "more_pictures"):
        given[key] = [line.strip() for line in given.get(key, "").splitlines() if line.strip()]
    try:
        return TrainRequest(**given, resume=resuming)
    except ValueError as error:  # pydantic's, whose words differ by version
        raise UserError(f"A field has a value that cannot be: {error}") from None


def show_folder(folder: str, mask: str) -> tuple[Any, Any, str]:
    if not folder:
        return gr.update(visible=False), [], ""
    try:
        found = pictures.shown(folder, mask)
    except UserError as error:
        return gr.update(visible=False), [], chart.mistake(str(error))
    gallery = gr.update(value=found.thumbnails, visible=bool(found.thumbnails))
    return gallery, found.captions, chart.pictures_note(found)


def upload_pictures(files: list[Any], name: str, chosen: str, mask: str) -> tuple[Any, ...]:
    try:
        folder = pictures.uploaded(files, name, chosen)
    except UserError as error:
        return gr.update(), gr.update(), gr.update(), chart.mistake(str(error))
    return gr.update(choices=folders.picture_folders(), value=folder), *show_folder(folder, mask)


def save_captions(folder: str, rows: list[list[str]], mask: str) -> tuple[str, str]:
    try:
        count = pictures.write_captions(folder, rows)
        return chart.written(f"{count} caption(s) written."), chart.pictures_note(pictures.shown(folder, mask))
    except (UserError, OSError) as error:
        return chart.mistake(str(error)), ""


def from_txt2img(name: str, prompt: str, negative: str, seed: float) -> tuple[str, str, int]:
    """The page puts the values of the txt2img tab in the place of the fields'; the word's name becomes *."""
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    return *(word.sub(WORD, " ".join(text.split())) for text in (prompt, negative)), int(seed)
