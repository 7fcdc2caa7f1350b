"""The table of options: what each says of itself is complete, and true of its default and of the presets."""

from __future__ import annotations

from collections import Counter
from dataclasses import MISSING, dataclass
from typing import Literal

import pytest

from ti_train.errors import UserError
from ti_train.training.config import OPTIONS, PRESETS, PRESETS_HELP, TrainConfig
from ti_train.training.options import option, options_of

ALL = pytest.mark.parametrize("name", OPTIONS)


@ALL
def test_an_option_says_what_it_is_in_sentences(name):
    about = OPTIONS[name]
    assert about.group
    assert about.label[0].isupper()
    assert about.help[-1] == "."
    assert about.help == " ".join(about.help.split())
    assert "%" not in about.help, "argparse would fill it in"
    assert not set(about.help) & set("{}|@"), "ComfyUI's page would fill it in"


@ALL
def test_default_and_presets_are_within_the_range(name):
    about = OPTIONS[name]
    for value in [*about.presets.values()] + [about.default] * (not about.required):
        about.check(value)
    if about.kind in ("int", "float"):
        assert None not in (about.least, about.most)


def test_no_name_means_two_options():
    names = Counter(alias for about in OPTIONS.values() for alias in {about.name, *about.aliases})
    assert [name for name, count in names.items() if count > 1] == []
    assert len({about.label for about in OPTIONS.values()}) == len(OPTIONS)


def test_values_of_the_presets_are_in_the_help_of_their_options():
    for name in {name for values in PRESETS.values() for name in values}:
        told = OPTIONS[name].described("0 = preset", "-1")
        for preset in PRESETS:
            value = getattr(TrainConfig.from_preset(preset, name="my-cat", init="cat"), name)
            assert f"{preset} {OPTIONS[name].written(value)}" in told
    assert "Paper: 5000 steps, batch size 1, learning rate 0.005 (constant), pull 0." in PRESETS_HELP


# --- How a field becomes an option ----------------------------------------------


@dataclass(frozen=True)
class Small:
    needed: str = option(MISSING, "A", "Needed", "It has to be given.", example="cat")
    count: int | None = option(None, "A", "Count", "How many.", least=1, most=3, unset="as many as there are")
    kind: Literal["x", "y"] = option("x", "B", "Kind", "Which.")
    loud: bool = option(False, "B", "Loud", "Whether it is.", choices=("quiet", "loud"))


SMALL = options_of(Small, {"Plain": {}, "Fast": {"loud": True}})


def test_kind_and_choices_come_from_the_annotation():
    kinds = {name: about.kind for name, about in SMALL.items()}
    assert kinds == {"needed": "text", "count": "int", "kind": "choice", "loud": "switch"}
    assert SMALL["kind"].choices == ("x", "y")
    assert [name for name, about in SMALL.items() if about.required] == ["needed"]


def test_what_is_left_out_is_told_in_the_words_of_the_face():
    assert SMALL["count"].described("0 = preset", "-1") == "How many. -1 = as many as there are."
    assert SMALL["loud"].described("null = preset", "null") == "Whether it is. null = preset: Plain quiet, Fast loud."
    assert SMALL["kind"].described("0 = preset", "-1") == "Which."


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("count", 0, "count is 0; it must be at least 1."),
        ("count", 4, "count is 4; it must be at most 3."),
        ("kind", "z", "kind is 'z'; it must be one of x, y."),
    ],
)
def test_a_value_that_cannot_be_is_refused(name, value, why):
    with pytest.raises(UserError, match=f"^{why}$"):
        SMALL[name].check(value)
    SMALL["count"].check(None)
