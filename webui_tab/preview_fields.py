"""The tab's fields for previews, by their names in the request."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr
from modules import sd_samplers

from ..ti_train.hosts.webui.sampling import SAMPLING
from ..ti_train.names import bare_name
from ..ti_train.prompts import PLACEHOLDER
from ..ti_train.text import one_line
from ..ti_train.training.config import OPTIONS
from .fields import Fields, field_of
from .scripts import script

BY_DEFAULT = "\n".join(OPTIONS["preview_prompts"].default)
EVERY = 25  # steps between the previews that prompts of the user's own switch on


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
    fields = {"preview_prompts": prompts, "preview_negative": negative, "preview_seed": seed} | sampling_fields()
    taken = list(fields.values())
    copied = take.click(from_txt2img, [name, *taken], taken, **script("ti_train_of_txt2img"))
    known = [gr.Textbox(BY_DEFAULT, visible=False), gr.Number(EVERY, precision=0, visible=False)]
    for event in (prompts.blur, copied.then):
        event(None, [prompts, every, *known], [every], **script("ti_train_previews_on"))
    return {"preview_every": every} | fields


def sampling_fields() -> Fields:
    names = [sampler.name for sampler in sd_samplers.samplers]
    side = "0 = the training resolution."

    def number(name: str, label: str, info: str, whole: bool = True) -> Any:
        return gr.Number(
            0, label=label, info=info, elem_id=f"ti_train_{name}", precision=0 if whole else None, min_width=90
        )

    with gr.Row():
        sampler = gr.Dropdown(
            names, value=SAMPLING.sampler, label="Preview sampler", elem_id="ti_train_preview_sampler", min_width=120
        )
        return {
            "preview_sampler": sampler,
            "preview_steps": number("preview_steps", "Preview steps", f"0 = {SAMPLING.steps}."),
            "preview_cfg": number("preview_cfg", "Preview CFG", f"0 = {SAMPLING.cfg:g}.", False),
            "preview_width": number("preview_width", "Preview width", side),
            "preview_height": number("preview_height", "Preview height", side),
        }


def from_txt2img(name: str, prompt: str, negative: str, seed: float, sampler: str, *numbers: float) -> tuple[Any, ...]:
    """The page passes the values of the txt2img tab; the embedding's name becomes *.

    numbers: steps, CFG scale, width, height.
    """
    prompt, negative = (with_placeholder(text, name) for text in (prompt, negative))
    return prompt, negative, int(seed), sampler, *numbers


def with_placeholder(text: str, name: str) -> str:
    """A prompt on one line, with * for the embedding's name, which the WebUI's prompts use without its folder."""
    line, name = one_line(text), name.strip()
    either = "|".join(map(re.escape, (name, bare_name(name))))
    return re.sub(rf"(?<![\w-])(?:{either})(?![\w-])", PLACEHOLDER, line) if name else line
