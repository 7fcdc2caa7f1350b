"""The tab's fields for training images, by their names in the request."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..ti_train.data.masks import Source
from ..ti_train.errors import UserError
from . import captioning, chart, folders, pictures
from .fields import Fields, field_of
from .scripts import hidden_button, script

UPLOAD = "Drop images and masks here, or click to upload"


def picture_fields(name: Any) -> Fields:
    with gr.Row():
        with gr.Column(min_width=200):
            folder = gr.Dropdown(
                folders.picture_folders(),
                label="Images",
                info="A folder in ti-train/pictures with 3 to 5 images, or a path. Uploads go into it, or a new one.",
                elem_id="ti_train_folder",
                allow_custom_value=True,
            )
            with gr.Row():
                refresh = gr.Button("Refresh folders", size="sm", min_width=80, elem_id="ti_train_refresh_folders")
                new = gr.Button("New folder", size="sm", min_width=80, elem_id="ti_train_new_folder")
        with gr.Column(min_width=200, elem_id="ti_train_upload"):
            # not gr.File: that of gradio 3 forgets its upload if any handler of the whole page answers meanwhile
            upload = gr.UploadButton(UPLOAD, file_count="multiple", file_types=["image"])
    thumbnails = gr.Gallery(
        label="Images", elem_id="ti_train_thumbnails", columns=5, height=190, object_fit="contain", visible=False
    )
    note = gr.HTML("", elem_id="ti_train_pictures_note")
    done = gr.HTML("", elem_id="ti_train_pictures_done")
    picked = gr.Textbox(visible=False)  # the image that was clicked
    remove = gr.Button("Remove the clicked image", size="sm", elem_id="ti_train_remove_picture", visible=False)
    with gr.Row():
        mask = field_of("mask")
        templates = field_of("templates", tuple(folders.template_files()))
    look = [folder, mask, templates]
    with gr.Accordion("Captions", open=False):
        captions = caption_fields(look, [thumbnails, remove], note)
        fields = tag_fields()
    seen = [thumbnails, remove, *captions, note]
    for changed in look:
        changed.change(show_folder, look, seen)
    refresh.click(lambda: gr.update(choices=folders.picture_folders()), [], [folder])
    new.click(lambda: "", [], [folder])
    uploaded = upload.upload(upload_pictures, [upload, name, *look], [done, folder, *seen])
    uploaded.then(None, [], [], **script("ti_train_uploaded"))
    thumbnails.select(clicked, [folder], [picked])
    remove.click(remove_picture, [picked, *look], [done, *seen])
    return {"pictures": folder, "mask": mask, "templates": templates} | fields


def caption_fields(look: list[Any], pictures: list[Any], note: Any) -> list[Any]:
    """The table of captions, with its buttons; returns the table, and what keeps its captions as they were shown."""
    captions = gr.Dataframe(
        headers=["image", "caption"],
        datatype=["str", "str"],
        type="array",
        col_count=(2, "fixed"),
        label="What each image shows besides the embedding; used by templates with [filewords]",
        elem_id="ti_train_captions",
        interactive=True,
    )
    shown = gr.JSON([], visible=False)  # in the page: a server that is started anew knows no State
    with gr.Row():
        write = gr.Button("Save captions", size="sm", elem_id="ti_train_write_captions")
        interrogator = gr.Dropdown(
            list(captioning.INTERROGATORS),
            value=next(iter(captioning.INTERROGATORS)),
            show_label=False,
            container=False,
            elem_id="ti_train_interrogator",
        )
        write_all = gr.Button("Caption images without one", size="sm", elem_id="ti_train_caption_all")
    with gr.Column(elem_id="ti_train_caption_bar"):
        written = gr.HTML("", elem_id="ti_train_captions_written")
    task = gr.Textbox(visible=False)
    write.click(save_captions, [captions, shown, *look], [written, shown, note])
    begun = write_all.click(start_captioning, [look[0], interrogator], [task, written])
    begun.then(None, [task], [], **script("ti_train_follow_captions"))
    ended = hidden_button("ti_train_captioned")
    ended.click(show_captions, [task, *look], [written, *pictures, captions, shown, note])
    return [captions, shown]


def tag_fields() -> Fields:
    with gr.Row():
        return {name: field_of(name) for name in ("shuffle_tags", "drop_tags", "keep_tags")}


def show_folder(folder: str, mask: Source, templates: str) -> tuple[Any, ...]:
    """The gallery, the button that removes one of its images, the captions twice (see caption_fields) and the note."""
    hidden = gr.update(visible=False)
    if not folder:
        return hidden, hidden, [], [], ""
    try:
        found = pictures.shown(folder, mask)
    except UserError as error:
        return hidden, hidden, [], [], chart.error_note(str(error))
    visible = bool(found.thumbnails)
    gallery = gr.update(value=found.thumbnails, visible=visible)
    return gallery, gr.update(visible=visible), *[found.captions] * 2, chart.pictures_note(found, templates)


def upload_pictures(files: list[Any], name: str, chosen: str, mask: Source, templates: str) -> tuple[Any, ...]:
    try:
        folder, note = pictures.uploaded(files, name, chosen)
    except UserError as error:
        return chart.error_note(str(error)), *(gr.update() for _ in range(6))
    choice = gr.update(choices=folders.picture_folders(), value=folder)
    return chart.written(note), choice, *show_folder(folder, mask, templates)


def clicked(folder: str, event: gr.SelectData) -> str:
    """The file name of the image that was clicked in the gallery."""
    try:
        found = pictures.shown(folder, "none").thumbnails
    except UserError:  # the folder is gone; what is clicked next says so
        return ""
    return found[event.index][1] if event.index < len(found) else ""


def remove_picture(picked: str, folder: str, mask: Source, templates: str) -> tuple[Any, ...]:
    try:
        done = chart.written(pictures.remove(folder, picked))
    except UserError as error:
        done = chart.error_note(str(error))
    return done, *show_folder(folder, mask, templates)


def save_captions(
    rows: list[list[str]], shown: list[list[str]], folder: str, mask: Source, templates: str
) -> tuple[str, Any, str]:
    try:
        count = pictures.write_captions(folder, rows, shown)
    except UserError as error:
        return chart.error_note(str(error)), gr.update(), ""
    note = chart.pictures_note(pictures.shown(folder, mask), templates)
    return chart.written(f"{count} caption(s) saved."), rows, note


def start_captioning(folder: str, interrogator: str) -> tuple[str, str]:
    try:
        return captioning.start(folder, interrogator), ""
    except UserError as error:
        return "", chart.error_note(str(error))


def show_captions(task: str, *look: Any) -> tuple[Any, ...]:
    return chart.written(captioning.note_of(task)), *show_folder(*look)
