"""A step's batch: drawn whatever the shapes of its pictures, then sorted into passes of one shape."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_host import ENCODER, TinyHost

from ti_train.data.dataset import Dataset, Encoded, encode_pictures
from ti_train.data.picture import Picture
from ti_train.events import Step
from ti_train.formats import load_embedding
from ti_train.host import Size
from ti_train.prompts import Templates
from ti_train.training.loop import train
from ti_train.training.micro_batches import antithetic, draw_noise, split_batch
from ti_train.training.validation import ValidationBatch

SHAPES = [(32, 32), (24, 40), (40, 24), (16, 64)]


def encoded(i: int, shape: tuple[int, int]) -> Encoded:
    height, width = shape
    latent = (height // 8, width // 8)
    size = Size(shape, (0, 0), shape)
    return Encoded(str(i), i, torch.full((4, *latent), float(i)), None, torch.ones(1, *latent), size, str(i), 1)


@pytest.fixture
def mixed(host) -> Dataset:
    """Six pictures of four shapes."""
    colours = ("red", "green", "blue", "white", "black", "yellow")
    pictures = [Picture.cropped(c, Image.new("RGB", (64, 64), c), SHAPES[i % 4]) for i, c in enumerate(colours)]
    return encode_pictures(host, pictures)


def learnt(host, dataset, config, folder, resume: bool = False) -> torch.Tensor:
    for _ in train(host, dataset, config, folder, resume):
        pass
    return load_embedding(folder / f"{config.name}.safetensors").vectors["emb_params"]


@given(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=12), st.integers(1, 5))
def test_passes_hold_the_batch_in_one_shape_each_and_no_more_than_fit(shapes, at_once):
    pictures = [encoded(i, shape) for i, shape in enumerate(shapes)]
    x0 = [picture.mean for picture in pictures]
    noise, sigma = [-latent for latent in x0], torch.arange(len(x0)) + 0.5
    prompts = [(picture.caption,) for picture in pictures]
    micro_batches = split_batch(pictures, x0, noise, sigma, prompts, at_once, torch.device("cpu"))
    seen = []
    for part in micro_batches:
        numbers = part.x0[:, 0, 0, 0].tolist()
        assert len(numbers) <= at_once
        assert torch.equal(part.noise, -part.x0)
        assert part.sigma.tolist() == [n + 0.5 for n in numbers]
        assert part.prompts == [(str(int(n)),) for n in numbers]
        assert [size.target for size in part.sizes] == [shapes[int(n)] for n in numbers]
        assert part.weights.shape == (len(numbers), 1, *part.x0.shape[2:])
        assert numbers == sorted(numbers)
        seen += numbers
    assert sorted(seen) == list(range(len(shapes)))
    assert len(micro_batches) == sum(-(-count // at_once) for count in Counter(shapes).values())


def test_noise_for_equal_shapes_is_that_of_one_tensor():
    noise = draw_noise([torch.zeros(4, 3, 5)] * 3, torch.Generator().manual_seed(0))
    assert torch.equal(torch.stack(noise), torch.randn(3, 4, 3, 5, generator=torch.Generator().manual_seed(0)))


def test_a_steps_gradient_is_the_mean_of_its_pictures_whatever_their_shapes(host, mixed, settings, tmp_path):
    """Four at once in as many passes as there are shapes, against one by one."""
    together = learnt(host, mixed, settings(batch_size=4), tmp_path / "a")
    one_by_one = learnt(host, mixed, settings(batch_size=1, accumulation=4), tmp_path / "b")
    assert torch.allclose(together, one_by_one, atol=1e-4)


def test_every_picture_comes_equally_often_however_few_share_its_shape(host, mixed, settings, tmp_path):
    shapes = Counter()
    hook = host.denoiser.register_forward_hook(
        lambda _m, inputs, _o: shapes.update([tuple(inputs[0].shape[2:])] * len(inputs[0]) * torch.is_grad_enabled())
    )
    learnt(host, mixed, settings(steps=6, batch_size=4), tmp_path)  # 24 pictures: four rounds
    hook.remove()
    assert shapes == {(4, 4): 8, (3, 5): 8, (5, 3): 4, (2, 8): 4}


@pytest.mark.parametrize("step", [1, 4])
def test_stopped_and_resumed_equals_uninterrupted(host, mixed, settings, tmp_path, step):
    config = settings(batch_size=4)
    expected = learnt(host, mixed, config, tmp_path / "whole")
    events = train(host, mixed, config, tmp_path / "parts")
    for event in events:
        if isinstance(event, Step) and event.step == step:
            events.close()
    assert torch.equal(learnt(host, mixed, config, tmp_path / "parts", resume=True), expected)


def test_the_validation_loss_takes_pictures_of_any_shape(host, mixed, settings):
    batch = ValidationBatch.draw(host, mixed, Templates.load("object"), settings(batch_size=4))
    toy = {"*": {ENCODER: host.vocabulary(ENCODER).rows("toy")}}
    with torch.no_grad():
        losses = torch.cat([part.losses(host, toy) for part in batch.micro_batches])
    assert len(batch.micro_batches) > 1
    assert batch.loss(host, toy) == pytest.approx(float(losses.log().mean().exp()))


def test_previews_stay_square(mixed, settings, tmp_path):
    host = TinyHost()
    previews = [
        e.image.size for e in train(host, mixed, settings(steps=1, preview_every=1), tmp_path) if hasattr(e, "image")
    ]
    assert previews == [(32, 32)] * 2


def test_neighbours_in_noise_level_have_opposite_noise_if_they_have_one_shape():
    noise = [torch.full((4, 2, 2), 1.0), torch.full((4, 2, 2), 2.0), torch.full((4, 2, 2), 3.0), torch.ones(4, 2, 3)]
    paired = antithetic(noise, torch.tensor([0.9, 0.1, 0.2, 1.0]))
    assert torch.equal(paired[2], -noise[1])
    assert all(torch.equal(paired[i], noise[i]) for i in (0, 1, 3))
    alone = antithetic(noise[:3], torch.tensor([0.9, 0.1, 0.2]))
    assert torch.equal(alone[0], noise[0])
