"""The sub-tab of the words that there are."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..ti_train.errors import UserError
from . import chart, folders, words


def build(item: gr.TabItem) -> None:
    table = gr.HTML("", elem_id="ti_train_word_table")
    with gr.Row():
        chosen = gr.Dropdown(
            [],
            label="Word",
            info="Of the embeddings folder.",
            elem_id="ti_train_word",
            allow_custom_value=True,
        )
        with gr.Column():
            tell = gr.Button("Tell about it", elem_id="ti_train_tell")
            refresh = gr.Button("Have prompts know every word of the folder", elem_id="ti_train_reread")
    text = gr.Textbox(
        label="About the word",
        lines=10,
        interactive=False,
        info="Lengths of its vectors, the nearest words of the loaded model, and the settings it was learnt with.",
        elem_id="ti_train_word_text",
    )
    tell.click(tell_about, [chosen], [text])
    refresh.click(reread, [], [table, chosen, text])
    item.select(lambda: (chart.word_table(words.listed()), word_choices()), [], [table, chosen])


def word_choices() -> Any:
    return gr.update(choices=[path.stem for path in folders.word_files()])


def tell_about(name: str) -> str:
    try:
        return words.told(name)
    except UserError as error:
        return str(error)


def reread() -> tuple[Any, Any, str]:
    try:
        words.reread()
    except UserError as error:
        return chart.word_table(words.listed()), word_choices(), str(error)
    return chart.word_table(words.listed()), word_choices(), ""
