"""The noise-free loss: always the same question to the model."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_host import ENCODER, dataset_of

from ti_train.host import Slot
from ti_train.prompts import PLACEHOLDER, Templates
from ti_train.training.validation import LEAST_NOISE, SIZE, ValidationBatch


@pytest.fixture
def draw(host, dataset, settings):
    return lambda **given: ValidationBatch.draw(host, dataset, Templates.load("object"), settings(**given))


def words(host, text: str):
    return {PLACEHOLDER: {ENCODER: host.vocabulary(ENCODER).rows(text)}}


def test_the_same_seed_asks_the_same_and_another_seed_another(host, draw):
    toy = words(host, "toy")
    assert draw().loss(host, toy) == draw().loss(host, toy)
    assert draw().loss(host, toy) != draw(seed=1).loss(host, toy)


def test_it_depends_on_the_word(host, draw):
    batch = draw()
    assert batch.loss(host, words(host, "toy")) != batch.loss(host, words(host, "dog"))
    assert all(Slot(PLACEHOLDER) in prompt for part in batch.micro_batches for prompt in part.prompts)


def test_its_noise_levels_are_spread_over_the_strongest(host, draw):
    count = len(host.sigmas)
    levels = [int(torch.searchsorted(host.sigmas, s)) for part in draw().micro_batches for s in part.sigma]
    wanted = [count * (LEAST_NOISE + (1 - LEAST_NOISE) * i / SIZE) for i in range(SIZE + 1)]
    assert all(low - 1 <= level <= high for level, low, high in zip(levels, wanted, wanted[1:], strict=False))


def test_it_is_the_geometric_mean_of_the_samples_losses(host, draw):
    batch, dog = draw(), words(host, "dog")
    with torch.no_grad():
        losses = [float(loss) for part in batch.micro_batches for loss in part.losses(host, dog)]
    assert batch.loss(host, dog) == pytest.approx(math.prod(losses) ** (1 / SIZE), rel=1e-5)


def test_its_pictures_are_the_vaes_means_not_samples(dataset, draw):
    means = [picture.mean for picture in dataset.pictures]
    assert all(any(torch.equal(x0, mean) for mean in means) for part in draw().micro_batches for x0 in part.x0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 16])
def test_how_many_go_at_once_does_not_matter(host, draw, batch_size):
    toy = words(host, "toy")
    assert draw(batch_size=batch_size).loss(host, toy) == pytest.approx(draw(batch_size=4).loss(host, toy), rel=1e-5)


def test_measuring_leaves_no_gradient_and_no_trace(host, draw):
    toy = words(host, "toy")
    vectors = toy[PLACEHOLDER][ENCODER].requires_grad_()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    draw().loss(host, toy)
    assert vectors.grad is None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fewer_pictures_than_its_size_are_used_again(host, settings, tmp_path, pictures):
    (tmp_path / "one.png").write_bytes((pictures / "red.png").read_bytes())
    batch = ValidationBatch.draw(host, dataset_of(host, tmp_path), Templates.load("object"), settings())
    x0 = torch.cat([part.x0 for part in batch.micro_batches])
    assert len(x0) == SIZE
    assert all(torch.equal(latent, x0[0]) for latent in x0)
