"""Descent on the sphere against the published update in a dozen lines, and as a part of a run."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tiny_host import ENCODER
from whole_runs import learnt, stopped_after

from ti_train.training.optimizer import SCALE, Group
from ti_train.training.sphere import SphereDescent

NORM, SCALED = 0.4, 2.0**12
SPHERE = {"optimizer": "sphere", "learning_rate": 0.04}


def home() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)


def gradient(step: int) -> torch.Tensor:
    return torch.randn(2, 8, generator=torch.Generator().manual_seed(step)) / step


def steps(count: int, pull: float = 0.0, state=None, leaf=None, first: int = 1) -> SphereDescent:
    leaf = (NORM * home() if leaf is None else leaf.detach().clone()).requires_grad_()
    optimizer = SphereDescent([leaf], SCALED, state=state, groups=[Group(home=home())], pull=pull)
    for step in range(first, first + count):
        leaf.grad = optimizer.scale * gradient(step)
        optimizer.step(torch.tensor(1.0), 0.04 / step)
    return optimizer


def reference(count: int, pull: float) -> torch.Tensor:
    """kunheek/dti, optim.py, with beta 0, in float64; a pull of 1: a tenth of the mean gradient so far."""
    place, mu, average = home().double(), home().double(), torch.zeros(2, 1, dtype=torch.float64)
    for step in range(1, count + 1):
        g = gradient(step).double()
        length = (g - (g * place).sum(-1, keepdim=True) * place).norm(dim=-1, keepdim=True)
        average = 0.9 * average + 0.1 * length
        g = g - 0.1 * pull * average / (1 - 0.9**step) * mu
        g = g - (g * place).sum(-1, keepdim=True) * place
        place = place - 0.04 / step * g / g.norm(dim=-1, keepdim=True)
        place = place / place.norm(dim=-1, keepdim=True)
    return NORM * place


@pytest.mark.parametrize("pull", [0.0, 1.0, 10.0])
def test_its_steps_are_those_of_the_formula(pull):
    assert torch.allclose(steps(9, pull).leaves[0].double(), reference(9, pull), atol=1e-6)


def test_a_step_turns_each_vector_by_the_rate_at_the_same_norm():
    moved = steps(1).leaves[0].detach()
    angle = torch.cosine_similarity(moved, home(), dim=-1).acos()
    assert torch.allclose(angle.tan(), torch.full((2,), 0.04), rtol=1e-2)
    assert torch.allclose(moved.norm(dim=-1), torch.full((2,), NORM))


def test_a_small_step_descends_as_the_slope_along_its_arc_says():
    """Central differences of a loss along the way of the step."""
    aim = torch.randn(2, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def loss(leaf: torch.Tensor) -> torch.Tensor:
        return ((leaf - aim) ** 2).sum()

    values = {}
    for rate in (-1e-3, 1e-3):
        leaf = (NORM * home().double()).requires_grad_()
        optimizer = SphereDescent([leaf], 1.0, groups=[Group(home=home().double())])
        loss(leaf).backward()
        slope = leaf.grad - (leaf.grad * home()).sum(-1, keepdim=True) * home()
        optimizer.step(torch.tensor(1.0), rate)
        values[rate] = loss(leaf).item()
    expected = -NORM * slope.norm(dim=-1).sum().item()  # of one radian
    assert (values[1e-3] - values[-1e-3]) / 2e-3 == pytest.approx(expected, rel=1e-4)


def test_a_step_that_is_not_finite_changes_nothing_but_halves_the_scale():
    optimizer = steps(2, 0.3)
    before, state = optimizer.leaves[0].detach().clone(), dict(optimizer.state)
    optimizer.leaves[0].grad = torch.full((2, 8), float("nan"))
    optimizer.step(torch.tensor(1.0), 0.04)
    assert torch.equal(optimizer.leaves[0], before)
    assert optimizer.scale == SCALED / 2
    assert all(torch.equal(optimizer.state[key], state[key]) for key in state if key != SCALE)


def test_one_that_goes_on_from_its_state_equals_one_that_never_stopped():
    whole, part = steps(6, 1.0), steps(3, 1.0)
    rest = steps(3, 1.0, part.state, part.leaves[0], first=4)
    assert torch.equal(whole.leaves[0], rest.leaves[0])


def test_a_row_that_joins_later_is_pulled_as_if_its_run_began_there():
    whole, alone = (
        SphereDescent([v.clone().requires_grad_()], SCALED, groups=[Group(home=h)], pull=5.0)
        for v, h in ((NORM * home(), home().flip(0)), (NORM * home()[1:], home()[:1]))
    )
    for step in range(1, 7):
        given = gradient(step)
        if step <= 3:
            given[1] = 0
        else:
            alone.leaves[0].grad = SCALED * given[1:]
            alone.step(torch.tensor(1.0), 0.04)
        whole.leaves[0].grad = SCALED * given
        whole.step(torch.tensor(1.0), 0.04)
    assert torch.allclose(whole.leaves[0][1:], alone.leaves[0], atol=1e-6)


# --- In a run -------------------------------------------------------------------


def test_a_run_begins_and_ends_at_the_mean_norm_of_the_vocabulary(host, dataset, settings, tmp_path):
    norm = host.vocabulary(ENCODER).mean_norm
    end = learnt(host, dataset, settings(num_vectors=2, **SPHERE), tmp_path)
    assert end.norm(dim=-1).tolist() == pytest.approx([norm] * 2)
    stopped_after(1, host, dataset, settings(num_vectors=2, **SPHERE), tmp_path / "state")
    initial = load_file(tmp_path / "state" / "my-toy.resume")[f"start.{ENCODER}"]
    assert initial.norm(dim=-1).tolist() == pytest.approx([norm] * 2)
    assert torch.allclose(torch.cosine_similarity(initial, host.vocabulary(ENCODER).rows("toy")), torch.ones(2))


def test_a_strong_pull_keeps_the_directions_near_the_initial_ones(host, dataset, settings, tmp_path):
    rows = host.vocabulary(ENCODER).rows("toy")
    cosines = {}
    for pull in (100.0, 0.0):
        end = learnt(host, dataset, settings(pull=pull, steps=20, **SPHERE), tmp_path / str(pull))
        cosines[pull] = torch.cosine_similarity(end, rows).item()
    assert cosines[0.0] < 0.96
    assert cosines[100.0] > 0.99
