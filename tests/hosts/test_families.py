"""What a model's own figures tell of its family."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ti_train.formats.layouts import ENCODERS
from ti_train.hosts.families import ARCHITECTURES, BY_CLASS, FAMILIES, class_name, resolution_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("family", "context_width", "prediction", "side"),
    [
        ("Stable Diffusion 1", 768, "eps", 512),
        ("Stable Diffusion 1 with v-prediction", 768, "v", 512),
        ("Stable Diffusion 2, base", 1024, "eps", 512),
        ("Stable Diffusion 2", 1024, "v", 768),
        ("Stable Diffusion XL", 2048, "eps", 1024),
        ("one that came after", 4096, "flow", 1024),
        ("one that names no width", None, "flow", 1024),
    ],
)
def test_the_side_that_a_family_was_trained_at(family, context_width, prediction, side):
    assert resolution_of(context_width, prediction) == side


def test_each_model_of_the_table_of_families_is_held_to_it():
    """By a tiny model, or because it is refused; Stable Diffusion 1 and 2 are trained in the running server."""
    sys.path.append(str(ROOT / "tests" / "comfyui"))
    from tiny_families import FAMILIES as TINY

    drawn = {class_name(tiny.model, tiny.unet) for tiny in (make() for make in TINY.values())}
    for family in FAMILIES[2:]:
        assert family.refused or drawn >= set(family.classes), family.title


def test_the_keys_of_a_file_are_read_back():
    assert {encoder for family in FAMILIES for encoder in family.encoders} <= set(ENCODERS)


def test_architectures_are_those_of_families_that_can_be_trained():
    assert all(not BY_CLASS[name].refused for name in ARCHITECTURES)
    without = {name for name, family in BY_CLASS.items() if not family.refused} - ARCHITECTURES.keys()
    relatives_of_xl = {"Segmind_Vega", "KOALA_700M", "KOALA_1B"}
    assert without - relatives_of_xl == {"PixArtAlpha", "PixArtSigma", "Krea2", "Anima", "HunyuanDiT", "Ovis"}
