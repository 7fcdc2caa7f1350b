"""The Embeddings sub-tab: lists the embeddings folder, shows details, converts and merges."""

from __future__ import annotations

from typing import Any

import gradio as gr
from pydantic import ValidationError

from ..ti_train.editability import HELP
from ..ti_train.embedding import MERGES
from ..ti_train.errors import UserError
from ..ti_train.formats import ENDINGS, PRECISIONS
from . import chart, embedding_files, exports
from .request import in_words
from .scripts import hidden_button, script

IN_FOLDER = "In the embeddings folder."


def build(item: gr.TabItem) -> None:
    table = gr.HTML("", elem_id="ti_train_embedding_table")
    reload = gr.Button("Reload embeddings", size="sm", elem_id="ti_train_reload")
    with gr.Row():
        with gr.Column():
            chosen = embedding_choice("embedding", "Embedding")
            show = gr.Button("Show details", elem_id="ti_train_show_details")
            text = gr.Textbox(
                label="Details",
                lines=10,
                interactive=False,
                info="Norms of its vectors, nearest words of the loaded model, training settings.",
                elem_id="ti_train_details",
            )
        with gr.Column():
            with gr.Tabs(elem_id="ti_train_new_files"):
                with gr.TabItem("Convert"):
                    convert, convert_inputs = convert_fields()
                with gr.TabItem("Merge"):
                    merge, merge_inputs = merge_fields()
            outcome = gr.HTML("", elem_id="ti_train_outcome")
    choices = [chosen, convert_inputs["word"], convert_inputs["second"], merge_inputs["word_1"], merge_inputs["word_2"]]
    show.click(details, [chosen], [text])
    shown = [table, *choices]
    reload.click(reload_embeddings, [], [*shown, text])
    item.select(look, [], shown)
    clicked = hidden_button("ti_train_choose")
    row = gr.Textbox(visible=False)
    clicked.click(choose, [row], [chosen, convert_inputs["word"], text], **script("ti_train_clicked_file"))
    for button, inputs, write in ((convert, convert_inputs, converted), (merge, merge_inputs, merged)):
        button.click(outcome_of(write, list(inputs)), list(inputs.values()), [outcome, *shown])


def embedding_choice(name: str, label: str, info: str = IN_FOLDER) -> Any:
    return gr.Dropdown([], label=label, info=info, elem_id=f"ti_train_{name}", allow_custom_value=True)


def convert_fields() -> tuple[Any, dict[str, Any]]:
    """The button, and the fields by their names in the request."""
    with gr.Row():
        word = embedding_choice("convert_word", "Embedding")
        about = "Only for Stable Diffusion XL in diffusers' layout."
        second = embedding_choice("convert_second", "Second file", about)
    which = gr.Textbox(
        label="Which embedding", info="If the file holds several.", elem_id="ti_train_convert_which", max_lines=1
    )
    fields = {"word": word, "second": second, "which": which} | output_fields("convert")
    return gr.Button("Convert", variant="primary", elem_id="ti_train_convert"), fields


def merge_fields() -> tuple[Any, dict[str, Any]]:
    """The button, and the fields."""
    with gr.Row():
        first, second = (
            embedding_choice("merge_word_1", "First embedding"),
            embedding_choice("merge_word_2", "Second embedding"),
        )
    how = gr.Dropdown(
        list(MERGES),
        value=MERGES[0],
        label="How",
        info="concatenate: the vectors of both, one after the other. sum: weighted sum, vector by vector. interpolate: "
        "between the two, by spherical interpolation of the directions.",
        elem_id="ti_train_merge_how",
    )
    with gr.Row():
        about = "For interpolate only the ratio of the two weights matters."
        weights = [
            gr.Number(1, label=f"Weight of the {place}", info=about, elem_id=f"ti_train_merge_weight_{number}")
            for number, place in ((1, "first"), (2, "second"))
        ]
    fields = {"word_1": first, "word_2": second, "how": how, "weight_1": weights[0], "weight_2": weights[1]}
    fields |= output_fields("merge")
    return gr.Button("Merge", variant="primary", elem_id="ti_train_merge"), fields


def output_fields(prefix: str) -> dict[str, Any]:
    with gr.Row():
        name = gr.Textbox(
            label="New name", info="File name without extension.", elem_id=f"ti_train_{prefix}_name", max_lines=1
        )
        layout = gr.Dropdown(
            list(ENDINGS),
            value="safetensors",
            label="Format",
            info="safetensors: for nearly all tools. a1111: its .pt. diffusers, onetrainer: their keys. png: an image.",
            elem_id=f"ti_train_{prefix}_format",
        )
    with gr.Row():
        precision = gr.Dropdown(
            list(PRECISIONS),
            value="fp32",
            label="Precision",
            info="fp16 and bf16 round the values.",
            elem_id=f"ti_train_{prefix}_precision",
        )
        strength = gr.Number(
            1, label="Strength", info="Multiplies the vectors; 1 = as trained.", elem_id=f"ti_train_{prefix}_strength"
        )
        norm = gr.Number(
            0, label="Norm", info="Norm of each vector; 0 = as trained.", elem_id=f"ti_train_{prefix}_norm"
        )
        editability = gr.Slider(
            0, 1, 0, step=0.05, label="Editability", info=HELP, elem_id=f"ti_train_{prefix}_editability"
        )
    overwrite = gr.Checkbox(
        False, label="Overwrite", info="Replace a file of this name.", elem_id=f"ti_train_{prefix}_overwrite"
    )
    return {
        "name": name,
        "format": layout,
        "precision": precision,
        "strength": strength,
        "norm": norm,
        "editability": editability,
        "overwrite": overwrite,
    }


def converted(values: dict[str, Any]) -> exports.Written:
    return exports.convert(exports.ConvertRequest(**values))


def merged(values: dict[str, Any]) -> exports.Written:
    names, weights = ([values.pop(f"{part}_{n}") for n in (1, 2)] for part in ("word", "weight"))
    return exports.merged(exports.MergeRequest(words=names, weights=weights, **values))


def outcome_of(write: Any, names: list[str]) -> Any:
    """A handler that writes a file and reports what it wrote, or the error."""

    def handler(*values: Any) -> tuple[Any, ...]:
        given = dict(zip(names, values, strict=True))
        try:
            if not given["name"]:
                raise UserError("The new name is empty. Enter a name such as my-cat.")
            report = chart.written(write(given).text)
        except UserError as error:
            report = chart.error_note(str(error))
        except ValidationError as error:
            report = chart.error_note(in_words(error, given))
        return report, *look()

    return handler


def look() -> tuple[Any, ...]:
    """The table, and the choices of every embedding field."""
    rows = embedding_files.listed()
    files = [row["file"] for row in rows]
    return chart.embedding_table(rows), *(gr.update(choices=files) for _ in range(5))


def details(name: str) -> str:
    try:
        return embedding_files.report(name or "")
    except UserError as error:
        return str(error)


def reload_embeddings() -> tuple[Any, ...]:
    try:
        note = embedding_files.reload()
    except UserError as error:
        note = str(error)
    return *look(), note


def choose(file: str) -> tuple[Any, ...]:
    """The clicked row's file in the fields, and its details."""
    return file, file, details(file)
