"""Options that were given and have no effect are reported, and no others."""

from __future__ import annotations

from contextlib import closing

import pytest
from tiny_host import dataset_of

from ti_train.events import Warning
from ti_train.training.config import OPTIONS
from ti_train.training.loop import train
from ti_train.training.unused import RULES


def remarks(host, pictures, config, folder) -> list[str]:
    """What a run reports before its first step."""
    dataset = dataset_of(host, pictures, captions=config.templates == "captions")
    with_remarks = train(host, dataset, config, folder)
    found = []
    for event in with_remarks:
        if not isinstance(event, Warning):
            with_remarks.close()
            return found
        found.append(event.message)
    raise AssertionError


@pytest.mark.parametrize(
    ("given", "remark"),
    [
        ({"preview_prompts": ("a * at night",)}, "preview_prompts has no effect: preview_every is 0, so there are no"),
        ({"preview_seed": 3, "preview_cfg": 7.0}, "preview_cfg, preview_seed have no effect: preview_every is 0"),
        ({"preview_every": 2, "preview_negative": "red", "preview_cfg": 1.0}, "preview_negative has no effect: a neg"),
        ({"shuffle_tags": True, "keep_tags": 1}, "shuffle_tags, keep_tags have no effect: the prompts contain no capt"),
        ({"templates": "captions", "keep_tags": 1}, "keep_tags has no effect: tags are neither shuffled nor dropped."),
        ({"warmup": 2, "learning_rate": "0.1:3, 0.01"}, "warmup has no effect: learning_rate gives the rate of every"),
        ({"progressive_every": 2, "num_vectors": 1}, "progressive_every has no effect: there is only one vector."),
        ({"copy_every": 50}, "copy_every has no effect: the run has fewer steps."),
        ({"initial_vectors": "condensed"}, "initial_vectors has no effect: there are as many vectors as the initial t"),
        ({"average": 0.2}, "average has no effect: its part of the run is one step at most."),
        ({"optimizer": "sphere", "pull": 0.0, "gradient_clip": 0.5}, "gradient_clip has no effect: sphere takes only"),
        ({"early_stop": 3}, "early_stop has no effect: the run has too few measurements of the validation loss."),
    ],
)
def test_what_has_no_effect_is_reported_with_the_reason(host, pictures, settings, tmp_path, given, remark):
    (said,) = (said for said in remarks(host, pictures, settings(**given), tmp_path) if "no effect" in said)
    assert said.startswith(remark)


def test_a_file_has_its_vectors(host, pictures, settings, tmp_path):
    list(train(host, dataset_of(host, pictures), settings(name="start", steps=1), tmp_path))
    config = settings(init=str(tmp_path / "start.safetensors"), initial_vectors="cross")
    assert "initial_vectors has no effect: the initial vectors are those of a file." in remarks(
        host, pictures, config, tmp_path
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"preview_every": 2, "preview_prompts": ("a * at night",), "preview_negative": "red"},
        {"preview_sampler": "euler", "preview_steps": 25},  # the host's own, which a form may always give
        {"templates": "captions", "shuffle_tags": True, "keep_tags": 1},
        {"warmup": 2},
        {"copy_every": 2},
        {"early_stop": 2},
        {"initial_vectors": "cross"},
        {"initial_vectors": "condensed", "init": "red toy", "num_vectors": 1},
        {"average": 0.5},
        {"optimizer": "sphere", "pull": 0.5, "gradient_clip": 0.5},
    ],
)
def test_what_has_an_effect_or_is_a_default_is_not(host, pictures, settings, tmp_path, given):
    assert not [said for said in remarks(host, pictures, settings(**given), tmp_path) if "no effect" in said]


def test_templates_for_captions_without_captions_are_reported(host, dataset, settings, tmp_path):
    with closing(train(host, dataset, settings(templates="captions"), tmp_path)) as events:
        assert next(events) == Warning("The templates 'captions' use captions, but no image has one.")


def test_the_rules_are_about_options():
    assert {name for rule in RULES for name in rule.options} <= set(OPTIONS)
