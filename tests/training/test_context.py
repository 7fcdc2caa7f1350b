"""The context loss: the paper's formula with CLIP's own states, its gradient, and what it does in a run."""

from __future__ import annotations

import pytest
import torch
from tiny_host import ENCODER, TinyHost
from whole_runs import learnt, stopped_after

from ti_train.host import Slot
from ti_train.training.context import context_loss, draw_contexts

PROMPTS = [("a photo of a ", Slot("*"), " and a dog"), ("the ", Slot("*"), " with a cat, red")]


def moved(host, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    initial = host.vocabulary(ENCODER).rows("toy dog")[:count]
    return initial, initial + 0.3 * torch.randn(initial.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [1, 2])
def test_the_loss_is_the_papers_and_its_gradient_the_slope(count):
    """1 - cos of the states behind the embedding, one by one; every coordinate by central differences in float64."""
    host = TinyHost(dtype=torch.float64)
    initial, vectors = (v.double() for v in moved(host, count))

    def formula() -> torch.Tensor:
        distances = []
        for prompt in PROMPTS:
            place = 1 + len(host.tokenize(prompt[0])) + count
            ours, theirs = (host.encode([prompt], {"*": {ENCODER: v}})[0, place:] for v in (vectors, initial))
            distances.append(1 - (ours * theirs).sum(-1) / ours.norm(dim=-1) / theirs.norm(dim=-1))
        return torch.stack([distance.mean() for distance in distances]).mean()

    vectors.requires_grad_()
    with host.training():
        loss = context_loss(host, PROMPTS, {ENCODER: vectors}, {ENCODER: initial})
        loss.backward()
    assert loss.item() == pytest.approx(formula().item(), rel=1e-4)
    h, slopes = 1e-4, torch.zeros_like(vectors)
    with torch.no_grad():
        for i in range(vectors.numel()):
            values = []
            for sign in (1, -1):
                vectors.view(-1)[i] += sign * h
                values.append(formula())
                vectors.view(-1)[i] -= sign * h
            slopes.view(-1)[i] = (values[0] - values[1]) / (2 * h)
    assert torch.allclose(vectors.grad, slopes, rtol=1e-2, atol=1e-3 * slopes.norm().item())


def test_at_the_initial_vectors_it_is_nothing(host):
    initial, _ = moved(host, 2)
    with host.training():
        assert context_loss(host, PROMPTS, {ENCODER: initial}, {ENCODER: initial}).item() == pytest.approx(0, abs=1e-6)


def test_every_prompt_has_words_behind_the_embedding(host):
    for seed in range(9):
        for before, slot, behind in draw_contexts(torch.Generator().manual_seed(seed)):
            assert before[-1] == " "
            assert slot == Slot("*")
            assert behind[0] in " ,"


def test_in_a_run_it_keeps_the_context_and_a_resumed_run_equals_an_uninterrupted_one(host, dataset, settings, tmp_path):
    initial = {ENCODER: host.vocabulary(ENCODER).rows("toy")}
    kept = {}
    for weight in (0.0, 10.0):
        config = settings(context=weight, steps=12, learning_rate=0.1)
        end = learnt(host, dataset, config, tmp_path / str(weight))
        with host.training():
            kept[weight] = context_loss(host, PROMPTS, {ENCODER: end}, initial).item()
    assert kept[10.0] < 0.2 * kept[0.0]
    stopped_after(5, host, dataset, config, tmp_path / "parts")
    assert torch.equal(learnt(host, dataset, config, tmp_path / "parts", resume=True), end)
