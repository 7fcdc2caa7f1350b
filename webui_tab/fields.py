"""The tab's fields for a training run, by their names in the request."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import gradio as gr
from pydantic import ValidationError

from ..ti_train.errors import UserError
from ..ti_train.training.config import OPTIONS, PRESETS, PRESETS_HELP
from ..ti_train.training.widgets import Widget, value_for, values_of, widget_of
from . import embedding_files
from .jobs import Job
from .option_names import NOTES
from .request import OFFERED, TrainRequest, in_words

IN_A_ROW = 3
FIRST_PRESET = next(iter(PRESETS))
OF_PRESETS = tuple(name for name in OFFERED if OPTIONS[name].presets)
Fields = dict[str, Any]


def field_of(name: str, more_choices: tuple[str, ...] = (), **further: Any) -> Any:
    """The component for an option."""
    widget = widget_of(name, more_choices)
    label, info = OPTIONS[name].label, widget.tooltip + NOTES.get(name, "")
    value = of_preset(FIRST_PRESET)[name] if name in OF_PRESETS else widget.value
    about = {"value": value, "label": label, "info": info, "elem_id": f"ti_train_{name}", **further}
    match widget.kind:
        case "int" | "float" if few(widget):
            return gr.Slider(widget.least, widget.most, step=widget.step, **about)
        case "int" | "float":
            return gr.Number(precision=0 if widget.kind == "int" else None, **about)
        case "switch":
            return gr.Checkbox(**about)
        case "choice":
            return gr.Dropdown(list(widget.choices), allow_custom_value=OPTIONS[name].kind == "text", **about)
        case "text" | "lines":
            return gr.Textbox(lines=2 if widget.kind == "lines" else 1, **about)


def of_preset(preset: str) -> dict[str, Any]:
    """The fields' values of a preset, so that its numbers are seen."""
    return {name: value_for(name, OPTIONS[name].presets[preset]) for name in OF_PRESETS}


def few(widget: Widget) -> bool:
    """Whether the values are few enough for a slider."""
    return (widget.most or math.inf) - (widget.least or 0) <= 100 * widget.step


def heading(text: str) -> None:
    gr.HTML(f"<div class='ti-train-heading'>{text}</div>")


def embedding_fields() -> Fields:
    fields = {}
    with gr.Row():
        fields["name"] = field_of("name")
        fields["init"] = field_of("init")
        start_from = gr.Dropdown(
            initial_files(),
            label="Continue from",
            info="An embedding of the folder as the initial text.",
            elem_id="ti_train_continue_from",
            min_width=120,
        )
    start_from.input(lambda file: file, [start_from], [fields["init"]])
    start_from.focus(lambda: gr.update(choices=initial_files()), [], [start_from])
    with gr.Row():
        fields["preset"] = gr.Dropdown(
            list(PRESETS),
            value=FIRST_PRESET,
            label="Preset",
            info=f"{PRESETS_HELP} It fills the fields that you have not changed.",
            elem_id="ti_train_preset",
        )
        fields["num_vectors"] = field_of("num_vectors")
    with gr.Row():
        fields["steps"] = field_of("steps")
        fields["learning_rate"] = field_of("learning_rate")
    return fields


def initial_files() -> list[str]:
    return [row["file"] for row in embedding_files.listed() if "problem" not in row]


def run_fields() -> Fields:
    about = "Replace an embedding of this name."
    with gr.Row():
        seed = field_of("seed")
        overwrite = gr.Checkbox(False, label="Overwrite", info=about, elem_id="ti_train_overwrite")
    return {"seed": seed, "overwrite": overwrite}


def more_fields(placed: Collection[str]) -> Fields:
    """All other options, by group."""
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


def fill_from_preset(fields: Fields) -> Any:
    """Choosing a preset writes its values into the fields; returns the component that holds the one they are of."""
    earlier = gr.Textbox(FIRST_PRESET, visible=False)
    filled = [earlier, *(fields[name] for name in OF_PRESETS)]
    fields["preset"].input(filled_from, [fields["preset"], *filled], filled)
    return earlier


def filled_from(preset: str, earlier: str, *values: Any) -> list[Any]:
    """The preset and its values; what the user has changed since the earlier preset was chosen stays."""
    given, before = dict(zip(OF_PRESETS, values, strict=True)), of_preset(earlier)
    changed = [name for name in values_of(given) if given[name] != before[name]]  # not what is left to the preset
    return [preset, *(of_preset(preset) | {name: given[name] for name in changed}).values()]


def with_preset(values: dict[str, Any], earlier: str) -> dict[str, Any]:
    """The fields' values with those of the chosen preset, also if the page has not got them yet."""
    given = (values[name] for name in OF_PRESETS)
    return values | dict(zip(("preset", *OF_PRESETS), filled_from(values["preset"], earlier, *given), strict=True))


def request_of(values: dict[str, Any], resuming: bool) -> TrainRequest:
    """The values of the fields; 0, empty and "the preset's" mean the preset's value. Raises UserError."""
    if not values["pictures"]:
        raise UserError("No images are chosen. Choose a folder, or upload 3 to 5 images.")
    given = values_of({name: value for name, value in values.items() if name in OPTIONS})
    beside = {name: value for name, value in values.items() if name not in OPTIONS and value is not None}
    beside["more_pictures"] = [line.strip() for line in beside["more_pictures"].splitlines() if line.strip()]
    try:
        return TrainRequest(**given, **beside, resume=resuming)
    except ValidationError as error:
        raise UserError(in_words(error, given | beside)) from None


def values_of_job(job: Job) -> dict[str, Any]:
    """The fields' values for a job's request; where the preset decided, its values."""
    asked = {name: value for name, value in job.request.dict().items() if name != "resume"}
    values = {
        name: value_for(name, getattr(job.config, name) if value is None else value)
        for name, value in asked.items()
        if name in OPTIONS
    }
    return asked | values | {"more_pictures": "\n".join(job.request.more_pictures), "overwrite": False}
