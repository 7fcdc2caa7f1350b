"""Every face offers every option of a training run, but for those that it says it cannot mean; no host is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from option_values import config_of_all

from nodes import option_names as nodes
from ti_train.__main__ import parser
from ti_train.commands.option_arguments import FLAGS, flag_of
from ti_train.commands.train import config_given
from ti_train.training.config import OPTIONS
from ti_train.training.options import Option
from ti_train.training.widgets import widget_of
from webui_tab import option_names as tab

ROOT = Path(__file__).resolve().parent.parent
FROZEN = json.loads((ROOT / "tests" / "comfyui" / "nodes.json").read_text(encoding="utf-8"))
TYPES = {"int": "INT", "float": "FLOAT", "switch": "BOOLEAN", "choice": "COMBO", "text": "STRING", "lines": "STRING"}


def test_a_face_leaves_out_what_its_host_decides_and_nothing_else():
    assert set(nodes.NOT_OFFERED) == {"mask", "device", "dtype"}
    assert set(tab.NOT_OFFERED) == {"device", "dtype", "guidance", "preview_sampler", "preview_scheduler"}
    for reason in (*nodes.NOT_OFFERED.values(), *tab.NOT_OFFERED.values()):
        assert reason.endswith(".")


# --- The command line -----------------------------------------------------------


def arguments(values: dict[str, Any], flags: dict[str, str]) -> list[str]:
    """The command line that gives these values."""
    given = ["train", "--model", "model", "--images", "images"]
    for name, value in values.items():
        if isinstance(value, bool):
            given.append(flags[name] if value else flags[name].replace("--", "--no-", 1))
        else:
            given += [f"{flags[name]}={part}" for part in (value if isinstance(value, tuple) else (value,))]
    return given


def other_flags(option: Option) -> list[str]:
    """All names of an option but the one that the help shows."""
    names = ["--" + option.name.replace("_", "-"), *("--" + alias for alias in option.aliases)]
    return [name for name in names if name != flag_of(option)]


def test_the_command_line_offers_every_option():
    values, expected = config_of_all()
    flags = {name: flag_of(option) for name, option in OPTIONS.items()}
    assert config_given(parser().parse_args(arguments(values, flags))) == expected


def test_the_command_line_takes_the_names_of_other_trainers():
    values, expected = config_of_all()
    flags = {name: (other_flags(option) or [flag_of(option)])[-1] for name, option in OPTIONS.items()}
    assert config_given(parser().parse_args(arguments(values, flags))) == expected


@pytest.mark.parametrize("name", ["learning_rate", "gradient_checkpointing", "num_vectors"])
def test_a_name_that_is_ours_and_another_trainers_may_have_its_underscores(name):
    """As kohya's and diffusers' scripts write it."""
    values, expected = config_of_all()
    flags = {name: flag_of(option) for name, option in OPTIONS.items()} | {name: f"--{name}"}
    assert config_given(parser().parse_args(arguments(values, flags))) == expected


def test_the_flags_of_before_are_there():
    """What people have in scripts."""
    assert set(FLAGS) == {"learning_rate", "progressive_every", "preview_prompts"}
    for flag in (
        "lr", "progressive", "preview-prompt", "name", "init", "steps", "batch-size", "accumulation", "num-vectors",
        "resolution", "square", "seed", "device", "dtype", "templates", "shuffle-tags", "drop-tags", "keep-tags",
        "flip", "mask", "gradient-checkpointing", "preview-every", "preview-negative", "preview-seed",
        "per-image-words", "coarse-weight",
    ):  # fmt: skip
        assert f"--{flag}" in {flag_of(option) for option in OPTIONS.values()}


# --- ComfyUI --------------------------------------------------------------------


@pytest.fixture(params=["TITrain_TrainEmbedding", "TITrain_TrainingOptions"])
def node(request) -> tuple[dict[str, str], list[list[Any]]]:
    """A node's inputs that are options, and its frozen inputs: name, type, default, required or optional."""
    inputs = nodes.TRAIN_EMBEDDING if request.param == "TITrain_TrainEmbedding" else nodes.TRAINING_OPTIONS
    return inputs, FROZEN[request.param]["inputs"]


def test_the_nodes_offer_every_option():
    offered = {*nodes.TRAIN_EMBEDDING.values(), *nodes.TRAINING_OPTIONS.values()}
    assert offered.isdisjoint(nodes.NOT_OFFERED)
    assert offered | set(nodes.NOT_OFFERED) == set(OPTIONS)


def test_an_input_is_of_the_kind_of_its_option(node):
    inputs, frozen = node
    there = {name: kind for name, kind, *_ in frozen}
    assert {name: there[name] for name in inputs} == {
        name: TYPES[nodes.NUMBERS.get(name, widget_of(option).kind)] for name, option in inputs.items()
    }
    assert [name for name in there if name in inputs] == list(inputs), "in the order of the frozen list"


def test_notes_are_of_inputs_that_there_are():
    assert set(nodes.NOTES) | set(nodes.NUMBERS) <= {*nodes.TRAIN_EMBEDDING, *nodes.TRAINING_OPTIONS}


# --- The WebUIs -----------------------------------------------------------------


def test_the_api_offers_every_option(load_in_webui):
    request = load_in_webui("webui_tab.request")
    assert set(request.OFFERED) | set(tab.NOT_OFFERED) == set(OPTIONS)
    values, expected = config_of_all()
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    made = request.TrainRequest(pictures="cats", **{name: asked[name] for name in request.OFFERED}).config()
    assert {name: getattr(made, name) for name in request.OFFERED} == {
        name: getattr(expected, name) for name in request.OFFERED
    }


def test_a_request_without_options_is_the_preset(load_in_webui):
    made = load_in_webui("webui_tab.request").TrainRequest(name="my-cat", pictures="cats", preset="Paper").config()
    assert (made.steps, made.batch_size, made.square, made.schedule) == (5000, 1, True, "constant")


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"num_vectors": 76}, {"schedule": "cosine"}, {"drop_tags": 1}])
def test_the_api_refuses_what_is_out_of_range(load_in_webui, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        load_in_webui("webui_tab.request").TrainRequest(name="my-cat", pictures="cats", **wrong)


def test_the_tab_offers_what_the_api_does(load_in_webui):
    fields, request = load_in_webui("webui_tab.fields"), load_in_webui("webui_tab.request")
    pictures, previews = load_in_webui("webui_tab.picture_fields"), load_in_webui("webui_tab.preview_fields")
    placed = fields.embedding_fields() | pictures.picture_fields(None) | previews.preview_fields(None)
    placed |= fields.run_fields()
    on_tab = placed | fields.more_fields(placed)
    asked = vars(request.TrainRequest(name="my-cat", pictures="cats"))
    assert set(on_tab) == set(asked) - {"resume"}, "for which there is a button"
