"""The options of a training run as arguments of a command."""

from __future__ import annotations

import argparse
from typing import Any

from ..training.config import OPTIONS, TrainConfig
from ..training.options import Option

# Shorter than the option's name, which is accepted too.
FLAGS = {"learning_rate": "lr", "progressive_every": "progressive", "preview_prompts": "preview-prompt"}
NO_EFFECT = {  # here; other hosts have more models and samplers
    "guidance": "the models of the command line have no distilled guidance",
    "preview_sampler": "previews are sampled with the model's own scheduler",
    "preview_scheduler": "previews are sampled with the model's own scheduler",
}
OWN = ("name",)  # of each embedding of a list
METAVARS = {"int": "N", "float": "X", "text": "TEXT", "lines": "TEXT"}


def add_options(command: argparse.ArgumentParser, shared: bool = False) -> None:
    """Adds an argument for each option, in groups; None, the default, means the preset's value.

    shared: by the embeddings of a list, which has their names and may have the rest.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in OPTIONS.values():
        if shared and option.name in OWN:
            continue
        if option.group not in groups:
            groups[option.group] = command.add_argument_group(option.group)
        _add(groups[option.group], option, required=option.required and not shared)


def options_given(a: argparse.Namespace) -> dict[str, Any]:
    """Option name -> value, or None if not given."""
    return {name: getattr(a, name) for name in OPTIONS if hasattr(a, name)}


def without_effect(*configs: TrainConfig) -> list[str]:
    """Remarks on options that are given in some of the settings and that this host does not have."""
    used = {name: why for name, why in NO_EFFECT.items() if any(getattr(config, name) for config in configs)}
    return [f"{flag_of(OPTIONS[name])} has no effect: {why}." for name, why in used.items()]


def flag_of(option: Option) -> str:
    return "--" + FLAGS.get(option.name, option.name.replace("_", "-"))


def _add(group: argparse._ArgumentGroup, option: Option, required: bool) -> None:
    flag, others = flag_of(option), ["--" + name for name in (option.name.replace("_", "-"), *option.aliases)]
    hidden = [other for other in others if other != flag]
    about = {"dest": option.name, "required": required, "help": _help(option), **_reading(option)}
    if required:  # any of its names will do
        group.add_argument(flag, *hidden, **about)
        return
    group.add_argument(flag, **about)
    if hidden:
        group.add_argument(*hidden, **about | {"help": argparse.SUPPRESS})


def _reading(option: Option) -> dict[str, Any]:
    """The argparse keywords for reading a value."""
    if option.kind == "switch":
        return {"action": argparse.BooleanOptionalAction}
    if option.kind == "choice":
        return {"choices": option.choices}
    types = {"int": int, "float": float}
    action = {"action": "append"} if option.kind == "lines" else {}
    return {"type": types.get(option.kind, str), "metavar": METAVARS[option.kind], **action}


def _help(option: Option) -> str:
    more = " Repeatable." if option.kind == "lines" else ""
    if option.required:
        return option.help + more
    default = option.preset_values or option.unset or option.written(option.default)
    return f"{option.help}{more} (default: {default})" if default else option.help + more
