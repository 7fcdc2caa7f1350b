"""The fields of a training on the tab, by the names that the request has for them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

import gradio as gr

from ..ti_train.data.masks import Source
from ..ti_train.errors import UserError
from ..ti_train.prompts import PLACEHOLDER
from ..ti_train.training.config import OPTIONS, PRESETS, PRESETS_HELP
from ..ti_train.training.widgets import Widget, values_of, widget_of
from . import chart, folders, pictures
from .option_names import NOTES
from .request import OFFERED, TrainRequest
from .scripts import script

IN_A_ROW = 3
Fields = dict[str, Any]


def field_of(name: str, more_choices: tuple[str, ...] = (), **further: Any) -> Any:
    """The component of an option."""
    widget = widget_of(name, more_choices)
    label, info = OPTIONS[name].label, widget.tooltip + NOTES.get(name, "")
    about = {"value": widget.value, "label": label, "info": info, "elem_id": f"ti_train_{name}", **further}
    match widget.kind:
        case "int" | "float" if few(widget):
            return gr.Slider(widget.least, widget.most, step=widget.step, **about)
        case "int" | "float":
            return gr.Number(precision=0 if widget.kind == "int" else None, **about)
        case "switch":
            return gr.Checkbox(**about)
        case "choice":
            return gr.Dropdown(list(widget.choices), **about)
        case "text" | "lines":
            return gr.Textbox(lines=2 if widget.kind == "lines" else 1, **about)


def few(widget: Widget) -> bool:
    """Whether a slider can show the values apart."""
    return (widget.most or math.inf) - (widget.least or 0) <= 100 * widget.step


def heading(words: str) -> None:
    gr.HTML(f"<div class='ti-train-heading'>{words}</div>")


def word_fields() -> Fields:
    fields = {}
    with gr.Row():
        fields["name"] = field_of("name")
        fields["init"] = field_of("init")
    with gr.Row():
        fields["preset"] = gr.Dropdown(
            list(PRESETS), value="Balanced", label="Preset", info=PRESETS_HELP, elem_id="ti_train_preset"
        )
        fields["num_vectors"] = field_of("num_vectors")
    with gr.Row():
        fields["steps"] = field_of("steps")
        fields["learning_rate"] = field_of("learning_rate")
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
        mask = field_of("mask")
        templates = field_of("templates", tuple(folders.template_files()))
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
        return {name: field_of(name) for name in ("shuffle_tags", "drop_tags", "keep_tags")}


def preview_fields(name: Any) -> Fields:
    with gr.Row():
        with gr.Column(scale=2, min_width=200):
            prompts = field_of("preview_prompts")
            take = gr.Button("From txt2img", size="sm", elem_id="ti_train_from_txt2img")
        with gr.Column(min_width=120):
            every = field_of("preview_every")
    with gr.Row():
        with gr.Column(scale=2, min_width=200):
            negative = field_of("preview_negative")
        with gr.Column(min_width=120):
            seed = field_of("preview_seed")
    of_txt2img = [prompts, negative, seed]
    take.click(from_txt2img, [name, *of_txt2img], of_txt2img, **script("ti_train_of_txt2img"))
    return {
        "preview_prompts": prompts,
        "preview_every": every,
        "preview_negative": negative,
        "preview_seed": seed,
    }


def run_fields() -> Fields:
    about = "Replace an embedding of this name."
    with gr.Row():
        seed = field_of("seed")
        overwrite = gr.Checkbox(False, label="Overwrite", info=about, elem_id="ti_train_overwrite")
    return {"seed": seed, "overwrite": overwrite}


def more_fields(placed: Collection[str]) -> Fields:
    """All options that have no place elsewhere, by their groups."""
    rest = [OPTIONS[name] for name in OFFERED if name not in placed]
    about = "One per line; the images of FOLDER:3 are repeated three times."
    fields: Fields = {}
    with gr.Accordion("More", open=False):
        fields["more_pictures"] = gr.Textbox(
            label="Further folders", info=about, lines=2, elem_id="ti_train_more_pictures"
        )
        for group in dict.fromkeys(option.group for option in rest):
            heading(group)
            names = [option.name for option in rest if option.group == group]
            for row in range(0, len(names), IN_A_ROW):
                with gr.Row():
                    fields |= {name: field_of(name) for name in names[row : row + IN_A_ROW]}
    return fields


def request_of(values: dict[str, Any], resuming: bool) -> TrainRequest:
    """What the fields say; 0, empty and "the preset's" leave a value to the preset. Raises UserError."""
    if not values["pictures"]:
        raise UserError("No images are chosen. Choose a folder, or upload 3 to 5 images.")
    given = values_of({name: value for name, value in values.items() if name in OPTIONS})
    beside = {name: value for name, value in values.items() if name not in OPTIONS}
    beside["more_pictures"] = [line.strip() for line in beside["more_pictures"].splitlines() if line.strip()]
    try:
        return TrainRequest(**given, **beside, resume=resuming)
    except ValueError as error:  # pydantic's, whose words differ by version
        raise UserError(f"A field has a value that cannot be: {error}") from None


def show_folder(folder: str, mask: Source) -> tuple[Any, Any, str]:
    if not folder:
        return gr.update(visible=False), [], ""
    try:
        found = pictures.shown(folder, mask)
    except UserError as error:
        return gr.update(visible=False), [], chart.mistake(str(error))
    gallery = gr.update(value=found.thumbnails, visible=bool(found.thumbnails))
    return gallery, found.captions, chart.pictures_note(found)


def upload_pictures(files: list[Any], name: str, chosen: str, mask: Source) -> tuple[Any, ...]:
    try:
        folder = pictures.uploaded(files, name, chosen)
    except UserError as error:
        return gr.update(), gr.update(), gr.update(), chart.mistake(str(error))
    return gr.update(choices=folders.picture_folders(), value=folder), *show_folder(folder, mask)


def save_captions(folder: str, rows: list[list[str]], mask: Source) -> tuple[str, str]:
    try:
        count = pictures.write_captions(folder, rows)
        return chart.written(f"{count} caption(s) written."), chart.pictures_note(pictures.shown(folder, mask))
    except (UserError, OSError) as error:
        return chart.mistake(str(error)), ""


def from_txt2img(name: str, prompt: str, negative: str, seed: float) -> tuple[str, str, int]:
    """The page puts the values of the txt2img tab in the place of the fields'; the word's name becomes *."""
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    prompt, negative = (word.sub(PLACEHOLDER, " ".join(text.split())) for text in (prompt, negative))
    return prompt, negative, int(seed)
