"""Metadata of the options, beside their defaults in TrainConfig; every user interface is derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import UserError

Kind = Literal["int", "float", "switch", "choice", "text", "lines"]


@dataclass(frozen=True)
class About:
    """Metadata of an option. Ranges are inclusive."""

    group: str
    label: str
    help: str  # valid in every interface; the presets' values are appended
    least: float | None = None
    most: float | None = None
    step: float = 1  # of a spin box
    choices: tuple[str, ...] = ()  # of a text: suggestions; of a switch: labels of off and on
    example: str = ""  # initial value in a form if there is no default
    unset: str = ""  # what None means
    may_change: bool = False  # when a run is resumed
    aliases: tuple[str, ...] = ()  # names in A1111, kohya's scripts and diffusers with the same meaning


@dataclass(frozen=True, kw_only=True)
class Option(About):
    """A field of TrainConfig with its metadata."""

    name: str
    kind: Kind
    type: Any  # the annotation
    default: Any  # MISSING if required
    presets: Mapping[str, Any]  # preset -> value; empty if all presets have the default

    @property
    def required(self) -> bool:
        return self.default is MISSING

    def check(self, value: Any) -> None:
        """Raises UserError for a value out of range or an unknown choice."""
        if self.kind == "choice" and value not in self.choices:
            raise UserError(f"{self.name} is '{value}'; it must be one of {', '.join(self.choices)}.")
        if self.kind not in ("int", "float") or value is None:
            return
        if self.least is not None and not value >= self.least:  # false for NaN too
            raise UserError(f"{self.name} is {value}; it must be at least {self.least}.")
        if self.most is not None and not value <= self.most:
            raise UserError(f"{self.name} is {value}; it must be at most {self.most}.")

    def described(self, preset: str, unset: str) -> str:
        """The help, followed by the meaning of a value that is not given.

        preset, unset: how the interface writes that value, such as "0 = preset" and "-1".
        """
        if self.presets:
            return f"{self.help} {preset}: {self.preset_values}."
        return f"{self.help} {unset} = {self.unset}." if self.unset else self.help

    @property
    def preset_values(self) -> str:
        return ", ".join(f"{preset} {self.written(value)}" for preset, value in self.presets.items())

    def written(self, value: Any) -> str:
        """A value as shown to the user."""
        if self.kind == "switch":
            return (self.choices or ("off", "on"))[bool(value)]
        if self.kind == "lines":
            return ", ".join(value)
        return f"{value:g}" if isinstance(value, float) else str(value)


def option(default: Any, group: str, label: str, help: str, **more: Any) -> Any:
    """A dataclass field with metadata. default: MISSING if required."""
    return field(default=default, metadata={"about": About(group, label, help, **more)})


def options_of(config: type, presets: Mapping[str, Mapping[str, Any]]) -> dict[str, Option]:
    """The options of a dataclass with fields made by `option`: name -> option."""
    hints = get_type_hints(config)
    return {f.name: _option(f, hints[f.name], presets) for f in fields(config)}


def _option(f: Field[Any], hint: Any, presets: Mapping[str, Mapping[str, Any]]) -> Option:
    about = vars(f.metadata["about"]) | ({"choices": get_args(hint)} if get_origin(hint) is Literal else {})
    differ = any(f.name in values for values in presets.values())
    by_preset = {preset: values.get(f.name, f.default) for preset, values in presets.items()} if differ else {}
    return Option(**about, name=f.name, kind=kind_of(hint), type=hint, default=f.default, presets=by_preset)


def kind_of(hint: Any) -> Kind:
    """The kind of input for a type hint. A union with str is a text; one with None is its other type."""
    if get_origin(hint) is Literal:
        return "choice"
    kinds: dict[Any, Kind] = {bool: "switch", tuple[str, ...]: "lines", float: "float"}
    return "int" if hint in (int, int | None) else kinds.get(hint, "text")
