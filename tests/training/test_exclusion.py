"""The exclusion loss against the paper's formula, written here independently, and its gradient against differences."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_host import ENCODER, WIDTH, TinyHost, dataset_of
from whole_runs import learnt, stopped_after

from ti_train.errors import UserError
from ti_train.host import Slot
from ti_train.training.exclusion import draw_others, exclusion_losses
from ti_train.training.timesteps import NoiseLevels

EXCLUSION = {"per_image_words": 0.5, "exclusion": 0.5, "learning_rate": 0.05}


def drawn(host, dataset, config):
    levels = NoiseLevels.of("uniform", host.sigmas, host.prediction)
    pictures = dataset.take(0, 4, 0)
    return pictures, draw_others(host, dataset, pictures, config, levels, torch.Generator().manual_seed(0))


def test_each_image_of_a_step_meets_one_that_it_is_not(host, pictures, settings):
    dataset = dataset_of(host, pictures, flip=True)
    means = {id_of(picture.mean): picture.number for picture in dataset.pictures}
    has_no_variance = TinyHost(has_variance=False)
    step, parts = drawn(has_no_variance, dataset_of(has_no_variance, pictures, flip=True), settings(**EXCLUSION))
    for part in parts:
        for x0, prompt in zip(part.x0, part.prompts, strict=True):
            (slot,) = [piece for piece in prompt if isinstance(piece, Slot)]
            assert slot.name != f"picture-{means[id_of(x0)]}"
    prompts = [prompt for part in parts for prompt in part.prompts]
    assert [prompt[1].name for prompt in prompts] == [f"picture-{picture.number}" for picture in step]


def id_of(mean: torch.Tensor) -> float:
    return round(float(mean.sum()), 4)


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_the_loss_is_the_papers_and_its_gradient_the_slope(pictures, settings, prediction):
    """| f(z, r_i) - f(z, "") |^2 at another image's z, every coordinate of r_i by central differences in float64."""
    host = TinyHost(prediction, torch.float64)
    _, (part, *_) = drawn(host, dataset_of(host, pictures), settings(**EXCLUSION))
    tokens = {
        f"picture-{n}": 0.3 * torch.randn(1, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        for n in range(3)
    }

    def formula() -> torch.Tensor:
        level = part.sigma.double()[:, None, None, None]
        z = part.x0 * (1 - level if prediction == "flow" else 1) + level * part.noise
        words = {name: {ENCODER: v} for name, v in tokens.items()}
        with_token, without = (host.predict(z, part.sigma, host.encode(p, words)) for p in (part.prompts, [("",)] * 2))
        return ((with_token - without) ** 2).mean(dim=(1, 2, 3)).sum()

    name = part.prompts[0][1].name
    vectors = tokens[name].requires_grad_()
    with host.training():
        loss = exclusion_losses(part, host, {key: {ENCODER: v} for key, v in tokens.items()}).sum()
        loss.backward()
    assert loss.item() == pytest.approx(formula().item(), rel=1e-5)
    h, slopes = 1e-4, torch.zeros_like(vectors)
    with torch.no_grad():
        for i in range(WIDTH):
            values = []
            for sign in (1, -1):
                vectors[0, i] += sign * h
                values.append(formula())
                vectors[0, i] -= sign * h
            slopes[0, i] = (values[0] - values[1]) / (2 * h)
    assert torch.allclose(vectors.grad, slopes, rtol=2e-3, atol=1e-4 * slopes.norm().item())


def test_the_tokens_say_less_of_other_images(host, dataset, settings, tmp_path):
    sizes = {}
    for weight in (0.0, 20.0):
        config = settings(**EXCLUSION | {"exclusion": weight}, steps=40)
        stopped_after(39, host, dataset, config, tmp_path / str(weight))
        tokens = load_file(tmp_path / str(weight) / "my-toy.resume")[f"own.{ENCODER}"]
        _, parts = drawn(host, dataset, settings(**EXCLUSION))
        words = {f"picture-{n}": {ENCODER: v[None]} for n, v in enumerate(tokens)}
        with torch.no_grad():
            sizes[weight] = sum(exclusion_losses(part, host, words).sum().item() for part in parts)
    assert sizes[20.0] < 0.5 * sizes[0.0]


def test_a_run_with_it_stopped_and_resumed_equals_uninterrupted(host, dataset, settings, tmp_path):
    whole = learnt(host, dataset, settings(**EXCLUSION), tmp_path / "whole")
    stopped_after(3, host, dataset, settings(**EXCLUSION), tmp_path / "parts")
    assert torch.equal(learnt(host, dataset, settings(**EXCLUSION), tmp_path / "parts", resume=True), whole)


def test_without_tokens_or_another_image_it_is_refused(host, settings, tmp_path):
    with pytest.raises(UserError, match="Set per_image_words"):
        settings(exclusion=0.5)
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    with pytest.raises(UserError, match="there is only one"):
        learnt(host, dataset_of(host, tmp_path, flip=True), settings(**EXCLUSION), tmp_path / "out")
