"""The sub-tab of the words that there are: what they are, and new files made of them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..ti_train.embedding import MERGES
from ..ti_train.errors import UserError
from ..ti_train.formats import ENDINGS, PRECISIONS
from . import chart, exports, words

OF_THE_FOLDER = "Of the embeddings folder."


def build(item: gr.TabItem) -> None:
    table = gr.HTML("", elem_id="ti_train_word_table")
    refresh = gr.Button("Have prompts know every word of the folder", size="sm", elem_id="ti_train_reread")
    with gr.Row():
        with gr.Column():
            chosen = word_choice("word", "Word")
            tell = gr.Button("Tell about it", elem_id="ti_train_tell")
            text = gr.Textbox(
                label="About the word",
                lines=10,
                interactive=False,
                info="Lengths of its vectors, the nearest words of the loaded model, the settings it was learnt with.",
                elem_id="ti_train_word_text",
            )
        with gr.Column():
            with gr.Tabs(elem_id="ti_train_new_files"):
                with gr.TabItem("Convert"):
                    convert, convert_inputs = convert_fields()
                with gr.TabItem("Merge"):
                    merge, merge_inputs = merge_fields()
            outcome = gr.HTML("", elem_id="ti_train_outcome")
    choices = [chosen, convert_inputs["word"], convert_inputs["second"], merge_inputs["word_1"], merge_inputs["word_2"]]
    tell.click(tell_about, [chosen], [text])
    shown = [table, *choices]
    refresh.click(reread, [], [*shown, text])
    item.select(look, [], shown)
    for button, inputs, write in ((convert, convert_inputs, converted), (merge, merge_inputs, merged)):
        button.click(outcome_of(write, list(inputs)), list(inputs.values()), [outcome, *shown])


def word_choice(name: str, label: str, info: str = OF_THE_FOLDER) -> Any:
    return gr.Dropdown([], label=label, info=info, elem_id=f"ti_train_{name}", allow_custom_value=True)


def convert_fields() -> tuple[Any, dict[str, Any]]:
    """The button, and the fields by the names that the request has for them."""
    with gr.Row():
        word = word_choice("convert_word", "Word")
        about = "Of Stable Diffusion XL in diffusers' layout, where there is one."
        second = word_choice("convert_second", "Second file", about)
    which = gr.Textbox(
        label="Which word", info="Where a file holds several.", elem_id="ti_train_convert_which", max_lines=1
    )
    fields = {"word": word, "second": second, "which": which} | output_fields("convert")
    return gr.Button("Convert", variant="primary", elem_id="ti_train_convert"), fields


def merge_fields() -> tuple[Any, dict[str, Any]]:
    """The button, and the fields."""
    with gr.Row():
        first, second = word_choice("merge_word_1", "First word"), word_choice("merge_word_2", "Second word")
    how = gr.Dropdown(
        list(MERGES),
        value=MERGES[0],
        label="How",
        info="concatenate: all vectors, one word after the other. sum: added up vector by vector. interpolate: between "
        "the two, along the arc from one direction to the other.",
        elem_id="ti_train_merge_how",
    )
    with gr.Row():
        about = "Factor; of interpolate only the ratio of the two counts."
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
            label="New name", info="Of the file, without ending.", elem_id=f"ti_train_{prefix}_name", max_lines=1
        )
        layout = gr.Dropdown(
            list(ENDINGS),
            value="safetensors",
            label="Format",
            info="safetensors: read by nearly all. a1111: its .pt. diffusers, onetrainer: their keys. png: a picture.",
            elem_id=f"ti_train_{prefix}_format",
        )
    with gr.Row():
        precision = gr.Dropdown(
            list(PRECISIONS),
            value="fp32",
            label="Precision",
            info="fp16 and bf16 round.",
            elem_id=f"ti_train_{prefix}_precision",
        )
        strength = gr.Number(
            1, label="Strength", info="Factor of the vectors; 1: as learnt.", elem_id=f"ti_train_{prefix}_strength"
        )
        norm = gr.Number(
            0, label="Norm", info="Length of each vector; 0: as learnt.", elem_id=f"ti_train_{prefix}_norm"
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
        "overwrite": overwrite,
    }


def converted(values: dict[str, Any]) -> exports.Written:
    return exports.convert(exports.ConvertRequest(**values))


def merged(values: dict[str, Any]) -> exports.Written:
    words, weights = ([values.pop(f"{part}_{n}") for n in (1, 2)] for part in ("word", "weight"))
    return exports.merged(exports.MergeRequest(words=words, weights=weights, **values))


def outcome_of(write: Any, names: list[str]) -> Any:
    """A handler that writes a file and says what it has written, or why not."""

    def handler(*values: Any) -> tuple[Any, ...]:
        given = dict(zip(names, values, strict=True))
        try:
            if not given["name"]:
                raise UserError("The new name is empty. Name the file like a word: my-cat.")
            told = chart.written(write(given).text)
        except UserError as error:
            told = chart.mistake(str(error))
        except ValueError as error:  # pydantic's, whose words differ by version
            told = chart.mistake(f"A field has a value that cannot be: {error}")
        return told, *look()

    return handler


def look() -> tuple[Any, ...]:
    """The table, and the choices of every field that names a word."""
    rows = words.listed()
    files = [row["file"] for row in rows]
    return chart.word_table(rows), *(gr.update(choices=files) for _ in range(5))


def tell_about(name: str) -> str:
    try:
        return words.told(name or "")
    except UserError as error:
        return str(error)


def reread() -> tuple[Any, ...]:
    try:
        words.reread()
    except UserError as error:
        return *look(), str(error)
    return *look(), ""
