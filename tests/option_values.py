"""A value of each option that is not its default, as TrainConfig holds it."""

from __future__ import annotations

from typing import Any

from ti_train.training.config import OPTIONS, TrainConfig
from ti_train.training.options import Option

GIVEN: dict[str, Any] = {"name": "my-cat", "init": "cat", "learning_rate": "1e-3:9, 1e-4", "progressive_every": 3}


def other_than_default(option: Option) -> Any:
    """Derived from the kind of the option, so that a new option is tested without a word."""
    if option.name in GIVEN:
        return GIVEN[option.name]
    if option.kind == "switch":
        return not option.default
    if option.choices:
        return next(choice for choice in reversed(option.choices) if choice != option.default)
    if option.kind in ("text", "lines"):
        return ("a *", "the *") if option.kind == "lines" else "dark"
    return (option.default or 0) + option.step * 2


def config_of_all() -> tuple[dict[str, Any], TrainConfig]:
    """Values of all options, and the settings that they make."""
    values = {name: other_than_default(option) for name, option in OPTIONS.items()}
    return values, TrainConfig(**values)
