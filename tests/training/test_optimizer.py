"""The optimizer is AdamW as published, and its state goes through a file without loss."""

from __future__ import annotations

import torch

from ti_train.training.optimizer import adamw, load_state_tensors, set_learning_rate, state_tensors


def leaves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 8, generator=generator).requires_grad_(),
        torch.randn(1, 5, generator=generator).requires_grad_(),
    ]


def take_step(optimizer, vectors, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for vector in vectors:
        vector.grad = torch.randn(vector.shape, generator=generator)
    set_learning_rate(optimizer, 0.01 / step)
    optimizer.step()


def test_its_steps_are_those_of_the_formula():
    """Kingma & Ba 2015, algorithm 1, in float64; no decay."""
    vectors = leaves()
    optimizer = adamw(vectors)
    expected = [v.detach().double().clone() for v in vectors]
    first, second = ([torch.zeros_like(e) for e in expected] for _ in range(2))
    for step in range(1, 6):
        take_step(optimizer, vectors, step)
        for v, e, m, s in zip(vectors, expected, first, second, strict=True):
            gradient = v.grad.double()
            m.mul_(0.9).add_(0.1 * gradient)
            s.mul_(0.999).add_(0.001 * gradient**2)
            e -= 0.01 / step * (m / (1 - 0.9**step)) / ((s / (1 - 0.999**step)).sqrt() + 1e-8)
    assert all(torch.allclose(v.double(), e, atol=1e-6) for v, e in zip(vectors, expected, strict=True))


def test_a_run_that_goes_on_from_its_state_equals_one_that_never_stopped():
    through, stopped = leaves(), leaves()
    never_stopped, before = adamw(through), adamw(stopped)
    for step in (1, 2, 3):
        take_step(never_stopped, through, step)
        take_step(before, stopped, step)
    after = adamw(stopped)
    load_state_tensors(after, state_tensors(before))
    for step in (4, 5):
        take_step(never_stopped, through, step)
        take_step(after, stopped, step)
    assert all(torch.equal(a, b) for a, b in zip(through, stopped, strict=True))


def test_the_state_is_a_copy():
    vectors = leaves()
    optimizer = adamw(vectors)
    take_step(optimizer, vectors, 1)
    state = state_tensors(optimizer)
    before = {key: value.clone() for key, value in state.items()}
    take_step(optimizer, vectors, 2)
    assert set(state) == {f"{leaf}.{key}" for leaf in (0, 1) for key in ("step", "exp_avg", "exp_avg_sq")}
    assert all(torch.equal(state[key], before[key]) for key in state)


def test_before_the_first_step_the_state_is_empty_and_loads():
    optimizer = adamw(leaves())
    assert state_tensors(optimizer) == {}
    load_state_tensors(optimizer, {})
