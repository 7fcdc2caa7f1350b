"""Training options as inputs of a node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..ti_train.training.widgets import Widget, widget_of
from .option_names import NOTES, NUMBERS


def option_input(name: str, option: str, more_choices: tuple[str, ...] = (), **given: Any) -> io.Input:
    """The input `name` for an option. `given`: arguments that differ on this node."""
    widget = widget_of(option, more_choices, NUMBERS.get(name))
    tooltip = widget.tooltip + NOTES.get(name, "")
    about = {"default": widget.value, "tooltip": tooltip, **_limits(widget), **given}
    match widget.kind:
        case "int":
            return io.Int.Input(name, **about)
        case "float":
            return io.Float.Input(name, **about)
        case "switch":
            return io.Boolean.Input(name, **about)
        case "choice":
            return io.Combo.Input(name, options=list(widget.choices), **about)
        case "text" | "lines":
            return io.String.Input(name, multiline=widget.kind == "lines", **about)


def _limits(widget: Widget) -> dict[str, float | None]:
    numbers = {"min": widget.least, "max": widget.most, "step": widget.step}
    return numbers if widget.kind in ("int", "float") else {}
