"""Options as fields of a form. Fields always have a value: 0, -1, "" or "the preset's" mean "not given"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config import OPTIONS
from .options import Kind, Option

FROM_PRESET = "the preset's"  # stored in saved workflows


@dataclass(frozen=True)
class Widget:
    """A field of a form. value: initial value. not_given: the value that leaves the option out, if any."""

    kind: Kind
    value: Any
    not_given: Any
    tooltip: str
    least: float | None
    most: float | None
    step: float
    choices: tuple[str, ...]


def widget_of(name: str, more_choices: tuple[str, ...] = (), kind: Kind | None = None) -> Widget:
    """The field of an option.

    more_choices: further choices, such as template files. kind: of the field, if not the option's.
    """
    option = OPTIONS[name]
    kind = kind or _kind(option)
    not_given = _not_given(option, kind)
    offered = (FROM_PRESET,) * bool(option.presets) + option.choices + more_choices
    return Widget(
        kind=kind,
        value=_beginning(option) if not_given is None else not_given,
        not_given=not_given,
        tooltip=option.described(
            {FROM_PRESET: "Preset values", "": "Empty = preset"}.get(not_given, f"{not_given} = preset"), "-1"
        ),
        least=not_given if isinstance(not_given, int) else option.least,
        most=option.most,
        step=option.step,
        choices=offered if kind == "choice" else (),
    )


def values_of(widgets: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of TrainConfig.from_preset, from the values of the fields by option name."""
    read = {name: _read(OPTIONS[name], value) for name, value in widgets.items()}
    return {name: value for name, value in read.items() if value is not None}


def value_for(name: str, value: Any) -> Any:
    """The field's value for an option's: what values_of() reads as that option."""
    option = OPTIONS[name]
    kind = _kind(option)
    if value is None:
        return _not_given(option, kind)
    if option.kind == "lines":
        return "\n".join(value)
    return option.written(value) if kind in ("choice", "text") else value


def _read(option: Option, value: Any) -> Any:
    value = value.strip() if isinstance(value, str) else value
    if value == _not_given(option, _kind(option)):
        return None
    if option.kind == "switch" and _kind(option) == "choice":
        return option.choices.index(value) == 1
    if option.kind == "lines":
        return tuple(line.strip() for line in value.splitlines() if line.strip())
    return value


def _kind(option: Option) -> Kind:
    chosen = option.choices and (option.kind == "text" or (option.kind == "switch" and option.presets))
    return "choice" if chosen else option.kind


def _not_given(option: Option, kind: Kind) -> Any:
    if not option.presets:
        return -1 if option.unset else None
    zero_counts = option.kind == kind and option.least == 0
    return {"choice": FROM_PRESET, "text": ""}.get(kind, -1 if zero_counts else 0)


def _beginning(option: Option) -> Any:
    if option.required:
        return option.example
    return "\n".join(option.default) if option.kind == "lines" else option.default
