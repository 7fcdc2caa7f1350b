"""The side in pixels at which images are trained: multiples that the model takes, and what fits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ti_train.errors import UserError
from ti_train.training import sides
from ti_train.training.config import TrainConfig
from ti_train.training.sides import fitting_side, side_for
from ti_train.training.step_memory import GIB, step_memory


def host(**facts: Any) -> Any:
    """Like Flux.1 in ComfyUI."""
    flux = {"resolution": 1024, "compression": 8, "unit": 16, "bytes_per_latent": (200_000, 2_000_000)}
    return SimpleNamespace(**flux | {"device": torch.device("cpu")} | facts)


def config(**given: Any) -> TrainConfig:
    return TrainConfig(**{"name": "toy", "init": "toy", "dtype": "float16"} | given)


@pytest.mark.parametrize(("given", "near"), [(520, 512), (8, 16), (1016, 1024)])
def test_a_side_that_the_model_does_not_take_is_answered_with_the_nearest(given, near):
    with pytest.raises(UserError, match=f"resolution is {given}; .* multiple of 16.* Use {near}, or 0"):
        side_for(host(), config(resolution=given), [])


@pytest.mark.parametrize("given", [0, 512])
def test_without_a_gpu_it_is_what_was_asked_for_or_the_models_own(given):
    remarks: list[str] = []
    assert side_for(host(), config(resolution=given), remarks) == (given or 1024)
    assert not remarks


def test_where_a_step_does_not_fit_the_default_is_less_and_that_is_reported(monkeypatch):
    monkeypatch.setattr(sides, "total_memory", lambda _: 2 * GIB)
    remarks: list[str] = []
    assert side_for(host(), config(), remarks) == 704
    assert "704 pixels instead of the model's 1024" in remarks[0]
    assert side_for(host(), config(resolution=1024), []) == 1024, "the user's own is kept"


@pytest.mark.parametrize(("largest", "reported"), [(512, False), (704, False), (720, True)])
def test_that_is_not_reported_of_images_that_are_no_larger(monkeypatch, largest, reported):
    monkeypatch.setattr(sides, "total_memory", lambda _: 2 * GIB)
    remarks: list[str] = []
    assert side_for(host(), config(), remarks, largest) == 704
    assert bool(remarks) == reported


@pytest.mark.parametrize("gib", [1, 2, 3, 4, 24])
def test_it_is_a_side_at_which_a_step_with_one_image_fits(gib):
    side = fitting_side(gib * GIB, host(), config())
    assert side % 64 == 0
    assert (side == 1024) == (gib >= 4)
    places = SimpleNamespace(mean=torch.empty(16, side // 8, side // 8))
    pictures: Any = SimpleNamespace(pictures=[places], resolution=side)
    assert step_memory(host(), pictures, config(batch_size=1, gradient_checkpointing=True)) <= gib * GIB


@pytest.mark.parametrize("memory", [GIB // 4, GIB])
def test_an_unknown_family_and_a_small_model_keep_their_own(memory):
    assert fitting_side(memory, host(bytes_per_latent=None), config()) == 1024
    assert fitting_side(memory, host(resolution=64), config()) == 64
