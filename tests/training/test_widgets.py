"""Options as fields of a form: what stands for "not given", and that what is filled in arrives."""

from __future__ import annotations

import pytest
from option_values import config_of_all

from ti_train.training.config import OPTIONS, PRESETS, TrainConfig
from ti_train.training.widgets import FROM_PRESET, values_of, widget_of

ALL = pytest.mark.parametrize("name", OPTIONS)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_untouched_form_is_the_preset(preset):
    values = values_of({name: widget_of(name).value for name in OPTIONS})
    assert TrainConfig.from_preset(preset, **values) == TrainConfig.from_preset(preset, name="my-word", init="object")


def test_what_is_filled_in_arrives():
    values, expected = config_of_all()
    filled = values | {"preview_prompts": "a *\n\n  the * ", "square": "square"}
    assert TrainConfig.from_preset("Balanced", **values_of(filled)) == expected


@ALL
def test_a_form_begins_with_what_it_takes(name):
    widget = widget_of(name)
    if widget.kind in ("int", "float"):
        assert widget.least <= widget.value <= widget.most
    if widget.kind == "choice":
        assert widget.value in widget.choices
    if widget.not_given is not None:
        assert values_of({name: widget.not_given}) == {}


@pytest.mark.parametrize(
    ("name", "value", "end"),
    [
        ("steps", 0, "0 = preset: Balanced 120, Preview 25, Style 500, Paper 5000."),
        ("learning_rate", "", "Empty = preset: Balanced 0.01, Preview 0.01, Style 0.005, Paper 0.005."),
        (
            "schedule",
            FROM_PRESET,
            "Preset values: Balanced linear, Preview linear, Style linear, Paper constant.",
        ),
        (
            "weighting",
            FROM_PRESET,
            "Preset values: Balanced none, Preview sigma, Style none, Paper none.",
        ),
        ("pull", -1, "-1 = preset: Balanced 1, Preview 0, Style 1, Paper 0."),
        ("preview_seed", -1, "-1 = the training seed."),
    ],
)
def test_the_tooltip_says_what_stands_for_not_given(name, value, end):
    widget = widget_of(name)
    assert widget.value == value
    assert widget.tooltip.endswith(" " + end)


def test_a_learning_rate_has_a_field_for_numbers_too():
    widget = widget_of("learning_rate", kind="float")
    assert (widget.value, widget.tooltip.partition("0 = preset")[1]) == (0, "0 = preset")


def test_template_files_are_chosen_like_the_built_in_ones():
    assert widget_of("templates", ("mine.txt",)).choices == (
        FROM_PRESET, "object", "style", "captions", "style-captions", "mine.txt",
    )  # fmt: skip
