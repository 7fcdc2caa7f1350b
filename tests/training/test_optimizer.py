"""The optimizer is AdamW as published; it skips what is not finite, and its state goes through a file without loss."""

from __future__ import annotations

import pytest
import torch

from ti_train.training.optimizer import SCALE, AdamW, Group

SCALED = 2.0**12


def leaves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 8, generator=generator).requires_grad_(),
        torch.randn(1, 5, generator=generator).requires_grad_(),
    ]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in ((2, 8), (1, 5))]


def take_step(optimizer: AdamW, step: int, loss: float = 1.0) -> float:
    for leaf, gradient in zip(optimizer.leaves, gradients(step), strict=True):
        leaf.grad = optimizer.scale * gradient
    return optimizer.step(torch.tensor(loss), 0.01 / step).item()


def test_its_steps_are_those_of_the_formula():
    """Kingma & Ba 2015, algorithm 1, in float64; no decay."""
    optimizer = AdamW(leaves(), SCALED)
    expected = [v.detach().double().clone() for v in optimizer.leaves]
    first, second = ([torch.zeros_like(e) for e in expected] for _ in range(2))
    for step in range(1, 6):
        take_step(optimizer, step)
        for e, g, m, s in zip(expected, gradients(step), first, second, strict=True):
            m.mul_(0.9).add_(0.1 * g.double())
            s.mul_(0.999).add_(0.001 * g.double() ** 2)
            e -= 0.01 / step * (m / (1 - 0.9**step)) / ((s / (1 - 0.999**step)).sqrt() + 1e-8)
    assert all(torch.allclose(v.double(), e, atol=1e-7) for v, e in zip(optimizer.leaves, expected, strict=True))


def test_its_steps_are_pytorchs():
    ours, theirs = AdamW(leaves(), SCALED, clip=1.5), leaves()
    reference = torch.optim.AdamW(theirs, weight_decay=0.0)
    for step in range(1, 6):
        norm = take_step(ours, step)
        for leaf, gradient in zip(theirs, gradients(step), strict=True):
            leaf.grad = gradient
        assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, 1.5).item(), rel=1e-6)
        reference.param_groups[0]["lr"] = 0.01 / step
        reference.step()
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(ours.leaves, theirs, strict=True))


@pytest.mark.parametrize("clip", [1.0, float("inf")])
@pytest.mark.parametrize(("loss", "spoilt"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_a_step_that_is_not_finite_changes_nothing_but_halves_the_scale(clip, loss, spoilt):
    optimizer = AdamW(leaves(), SCALED, clip)
    take_step(optimizer, 1)
    vectors, state = [v.detach().clone() for v in optimizer.leaves], dict(optimizer.state)
    for leaf, gradient in zip(optimizer.leaves, gradients(2), strict=True):
        leaf.grad = spoilt * gradient
    optimizer.step(torch.tensor(loss), 0.01)
    assert all(torch.equal(a, b) for a, b in zip(optimizer.leaves, vectors, strict=True))
    assert optimizer.scale == SCALED / 2
    assert all(torch.equal(optimizer.state[key], state[key]) for key in state if key != SCALE)
    before = optimizer.leaves[0].detach().clone()
    take_step(optimizer, 3)
    assert not torch.equal(optimizer.leaves[0], before), "the next step counts"


def test_the_scale_changes_no_digit_and_never_falls_below_one():
    plain, scaled = AdamW(leaves(), 1.0), AdamW(leaves(), SCALED)
    for step in (1, 2, 3):
        take_step(plain, step)
        take_step(scaled, step)
    assert all(torch.equal(a, b) for a, b in zip(plain.leaves, scaled.leaves, strict=True))
    take_step(plain, 4, loss=float("nan"))
    assert plain.scale == 1


def test_a_leaf_without_a_gradient_stays_and_counts_no_step():
    optimizer = AdamW(leaves(), SCALED)
    still = optimizer.leaves[1].detach().clone()
    optimizer.leaves[0].grad = torch.ones(2, 8)
    optimizer.step(torch.tensor(1.0), 0.01)
    assert torch.equal(optimizer.leaves[1], still)
    assert set(optimizer.state) == {SCALE, "0.step", "0.exp_avg", "0.exp_avg_sq"}


def test_a_run_that_goes_on_from_its_state_equals_one_that_never_stopped():
    never_stopped, before = AdamW(leaves(), SCALED), AdamW(leaves(), SCALED)
    for step, loss in ((1, 1.0), (2, float("nan")), (3, 1.0)):
        take_step(never_stopped, step, loss)
        take_step(before, step, loss)
    after = AdamW(before.leaves, SCALED, state=before.state)
    for step in (4, 5):
        take_step(never_stopped, step)
        take_step(after, step)
    assert after.scale == SCALED / 2
    assert all(torch.equal(a, b) for a, b in zip(never_stopped.leaves, after.leaves, strict=True))


def test_a_shallow_copy_of_the_state_is_a_snapshot():
    optimizer = AdamW(leaves(), SCALED)
    take_step(optimizer, 1)
    copied = dict(optimizer.state)
    before = {key: value.clone() for key, value in copied.items()}
    take_step(optimizer, 2)
    assert set(copied) == {SCALE} | {f"{leaf}.{key}" for leaf in (0, 1) for key in ("step", "exp_avg", "exp_avg_sq")}
    assert all(torch.equal(copied[key], before[key]) for key in copied)


def test_groups_move_in_units_of_their_own_and_are_clipped_apart():
    """Five times as wide a table: the same steps, five times as long; a large gradient of one group clips no other."""
    alone, grouped = AdamW(leaves(), SCALED, 1.0), AdamW(leaves(), SCALED, 1.0, groups=[Group("l"), Group("t5", 5.0)])
    before = [leaf.detach().clone() for leaf in leaves()]
    for optimizer, factor in ((alone, 1.0), (grouped, 1000.0)):
        first, second = gradients(1)
        optimizer.leaves[0].grad = optimizer.scale * first
        optimizer.leaves[1].grad = optimizer.scale * second * factor
        optimizer.step(torch.tensor(1.0), 0.01)
    moved = [[leaf - start for leaf, start in zip(o.leaves, before, strict=True)] for o in (alone, grouped)]
    assert torch.allclose(moved[1][0], moved[0][0], rtol=1e-4)
    assert torch.allclose(moved[1][1], 5 * moved[0][1], rtol=1e-4)


@pytest.mark.parametrize(("pull", "rate"), [(1.0, 5e-3), (1.0, 1e-2), (0.5, 1e-2), (1.0, 1.0)])
def test_the_norms_are_pulled_as_in_the_pivotal_tuning_script(pull, rate):
    """|v| <- |v| + min(1, 100 lr) (norm - |v|), after AdamW's update, whose direction stays. Initial norms: 0.4."""
    home = [0.4 * torch.nn.functional.normalize(leaf.detach(), dim=-1) for leaf in leaves()]
    groups = [Group(home=initial) for initial in home]
    plain, pulled = AdamW(leaves(), SCALED), AdamW(leaves(), SCALED, groups=groups, pull=pull)
    for optimizer in (plain, pulled):
        for leaf, gradient in zip(optimizer.leaves, gradients(1), strict=True):
            leaf.grad = optimizer.scale * gradient
        optimizer.step(torch.tensor(1.0), rate)
    for free, drawn in zip(plain.leaves, pulled.leaves, strict=True):
        norms = free.norm(dim=-1, keepdim=True)
        expected = free / norms * (norms + min(1.0, 100 * rate * pull) * (0.4 - norms))
        assert torch.allclose(drawn, expected, atol=1e-6)
