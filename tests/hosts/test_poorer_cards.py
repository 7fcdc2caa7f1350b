"""What not every accelerator has: Apple's knows no float64 at all, Intel's Arc A cards neither, and in PyTorch 2.1
Apple's has no kernel for `searchsorted`. On the pretended card, which has all of it, nothing asks for any of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from devices import card_kernels
from devices.pretend_cuda import Card
from devices.runner import on_card
from PIL import Image

from ti_train.data.dataset import encode_pictures
from ti_train.data.picture import Picture
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.noise_levels import sigmas_of
from ti_train.training.config import TrainConfig
from ti_train.training.loop import train

MISSING = {"searchsorted", "bucketize"}


def watched() -> Counter[str]:
    """Fills with what the card is asked for from now on, of all that poorer cards do not have."""
    asked: Counter[str] = Counter()
    to_card = card_kernels.to_card

    def noting(cpu: torch.Tensor, **more: bool) -> torch.Tensor:
        asked.update(["float64"] if cpu.dtype == torch.float64 else [])
        return to_card(cpu, **more)

    def full(name: str) -> bool:
        asked.update([name] if name in MISSING else [])
        return False

    card_kernels.to_card, Card.fail_at = noting, full
    return asked


def asked_by_all() -> dict[str, int]:
    """That the watch sees what it is there for."""
    asked = watched()
    levels = torch.arange(4.0, device="cuda")
    torch.searchsorted(levels, levels[:2])
    levels.double()
    return dict(asked)


def asked_by_a_run(folder: str, model: str) -> dict[str, int]:
    asked = watched()
    host = DiffusersHost.load(Path(model), "cuda", "float32")
    picture = Picture.cropped("red", Image.new("RGB", (16, 16), "red"), (16, 16))
    config = TrainConfig(
        name="word", init="cat", steps=2, batch_size=2, evaluate_every=1, preview_every=2, gradient_checkpointing=True
    )
    for _ in train(host, encode_pictures(host, [picture]), config, Path(folder)):
        pass
    return dict(asked)


def asked_by_noise_levels() -> dict[str, int]:
    """A WebUI's table of alphas lies where its model does."""
    alphas = torch.linspace(0.99, 0.01, 10).to("cuda")
    asked = watched()
    sigmas_of(alphas)
    return dict(asked)


def test_the_watch_sees_what_it_is_there_for():
    assert on_card(asked_by_all) == {"searchsorted": 1, "float64": 1}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_run_asks_for_nothing_that_poorer_cards_lack(family, pipelines, tmp_path):
    assert on_card(asked_by_a_run, tmp_path, pipelines(family=family)) == {}


def test_noise_levels_are_computed_where_there_is_float64():
    assert on_card(asked_by_noise_levels) == {}
