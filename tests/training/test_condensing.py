"""Fewer vectors than a text has tokens, that condition as the text does: against the mean of its rows."""

from __future__ import annotations

import pytest
import torch
from tiny_host import ENCODER, WIDTH, TinyHost

from ti_train.embedding import condensed
from ti_train.host import Slot
from ti_train.training.condensing import MOST, TEXTS, condense

TEXT = "a blue toy"


@pytest.fixture
def rows(host):
    return host.vocabulary(ENCODER).rows(TEXT)


def far(host: TinyHost, vectors: torch.Tensor, rows: torch.Tensor) -> float:
    """Distance of the conditionings, written out: the encoder's states behind the vectors, at the same places."""
    total = 0.0
    for before, after in TEXTS:
        filled = "a " * (len(rows) - len(vectors)) + before
        with torch.no_grad():
            ours = host.encode([(filled, Slot("*"), after)], {"*": {ENCODER: vectors}})[0]
            theirs = host.encode([(before + TEXT + after,)], {})[0]
        behind = 1 + len(host.tokenize(before + TEXT))
        total += float((ours[behind:] - theirs[behind:]).pow(2).sum() / theirs[behind:].pow(2).sum())
    return total


@pytest.mark.parametrize("count", [1, 2])
def test_prompts_condition_more_like_the_text_than_with_the_mean(host, rows, count):
    """By as much as it says. This encoder is random: what words mean in it depends on their places most."""
    mean = condensed(rows, count)
    found = condense(host, {ENCODER: rows}, {ENCODER: mean})
    assert found.vectors[ENCODER].shape == (count, WIDTH)
    nearer = far(host, found.vectors[ENCODER], rows) / far(host, mean, rows)
    assert nearer == pytest.approx(found.shares[ENCODER], rel=1e-3)
    assert nearer < 0.8


def test_it_is_the_same_every_time_and_leaves_the_start_alone(host, rows):
    mean = condensed(rows, 1)
    before = mean.clone()
    one, other = (condense(host, {ENCODER: rows}, {ENCODER: mean}).vectors[ENCODER] for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(mean, before)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_whenever_it_is_stopped_the_vectors_are_no_farther_than_the_mean(host, rows, after):
    asked = []
    mean = condensed(rows, 1)
    found = condense(host, {ENCODER: rows}, {ENCODER: mean}, lambda: asked.append(1) or len(asked) > after)
    assert len(asked) == after + 1
    assert found.shares[ENCODER] <= 1
    assert after > 1 or torch.equal(found.vectors[ENCODER], mean)


def test_what_has_as_many_vectors_as_tokens_is_left_as_it_is(host, rows):
    found = condense(host, {ENCODER: rows}, {ENCODER: rows})
    assert torch.equal(found.vectors[ENCODER], rows)
    assert found.shares == {}


def test_its_cost_is_limited(host, rows):
    asked = []
    condense(host, {ENCODER: rows}, {ENCODER: condensed(rows, 1)}, lambda: bool(asked.append(1)))
    assert len(asked) <= 1.5 * MOST, "a line search may go on"
