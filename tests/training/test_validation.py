"""The validation loss: the same questions in each run of a seed, and what is left of their untrained loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_host import ENCODER, dataset_of

from ti_train.host import Slot
from ti_train.prompts import PLACEHOLDER, Templates
from ti_train.training.validation import GROUPS, SIZE, Validation


def words(host, text: str):
    return {PLACEHOLDER: {ENCODER: host.vocabulary(ENCODER).rows(text)}}


@pytest.fixture
def draw(host, dataset, settings) -> Callable[..., Validation]:
    """A validation of runs that start from "toy"."""
    return lambda **given: Validation.draw(
        host, dataset, Templates.load("object"), settings(**given), words(host, "toy")
    )


def parts(validation: Validation):
    return [part for group in validation.groups for part in group]


def test_the_same_seed_asks_the_same_and_another_seed_another(host, draw):
    dog = words(host, "dog")
    assert draw().loss(dog, 1) == draw().loss(dog, 1)
    assert draw().loss(dog, 1) != draw(seed=1).loss(dog, 1)


@pytest.mark.parametrize("number", [1, GROUPS - 1, GROUPS, 3 * GROUPS + 2])
def test_vectors_that_have_not_changed_have_the_untrained_loss_whichever_group_is_measured(host, draw, number):
    validation = draw()
    assert validation.loss(words(host, "toy"), number) == validation.untrained


def test_the_loss_is_the_untrained_one_times_what_is_left_in_the_group_that_is_measured(host, draw):
    """Computed apart: each sample's square error times its noise level, as sums over the group."""
    validation, sums = draw(), {}
    for text in ("toy", "dog"):
        losses = torch.cat([part.losses(host, words(host, text)) * part.sigma for part in validation.groups[2]])
        sums[text] = float(losses.detach().sum())
    found = validation.loss(words(host, "dog"), 2)
    assert found == pytest.approx(validation.untrained * sums["dog"] / sums["toy"], rel=1e-5)


def test_what_was_measured_before_does_not_matter(host, draw):
    """So a resumed run measures what an uninterrupted one does."""
    dog, one, other = words(host, "dog"), draw(), draw()
    for number in range(1, 4):
        one.loss(dog, number)
    assert one.loss(dog, 4) == other.loss(dog, 4)


def test_every_prompt_has_the_embedding(draw):
    assert all(Slot(PLACEHOLDER) in prompt for part in parts(draw()) for prompt in part.prompts)


def test_each_group_takes_one_noise_level_from_each_quarter_and_no_two_the_same(host, draw):
    levels = [
        [int(torch.searchsorted(host.sigmas, s)) for part in group for s in part.sigma] for group in draw().groups
    ]
    assert [[level * SIZE // len(host.sigmas) for level in group] for group in levels] == [[0, 1, 2, 3]] * GROUPS
    assert len({level for group in levels for level in group}) == SIZE * GROUPS


def test_its_pictures_are_the_vaes_means_not_samples(dataset, draw):
    means = [picture.mean for picture in dataset.pictures]
    assert all(any(torch.equal(x0, mean) for mean in means) for part in parts(draw()) for x0 in part.x0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 16])
def test_how_many_go_at_once_does_not_matter(host, draw, batch_size):
    dog = words(host, "dog")
    assert draw(batch_size=batch_size).loss(dog, 1) == pytest.approx(draw(batch_size=4).loss(dog, 1), rel=1e-5)


def test_measuring_leaves_no_gradient_and_no_trace(host, draw):
    dog = words(host, "dog")
    vectors = dog[PLACEHOLDER][ENCODER].requires_grad_()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    draw().loss(dog, 1)
    assert vectors.grad is None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fewer_pictures_than_its_size_are_used_again(host, settings, tmp_path, pictures):
    (tmp_path / "one.png").write_bytes((pictures / "red.png").read_bytes())
    dataset = dataset_of(host, tmp_path)
    validation = Validation.draw(host, dataset, Templates.load("object"), settings(), words(host, "toy"))
    x0 = torch.cat([part.x0 for part in validation.groups[0]])
    assert len(x0) == SIZE
    assert all(torch.equal(latent, x0[0]) for latent in x0)
