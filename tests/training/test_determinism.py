"""PyTorch's deterministic mode is on within a step, and the host's own outside of it."""

from __future__ import annotations

import os

import pytest
import torch
from tiny_host import at_forward

from ti_train.errors import UserError
from ti_train.training.determinism import WORKSPACE, deterministic
from ti_train.training.loop import train


def modes() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    switches = torch.are_deterministic_algorithms_enabled(), warn_only, cudnn.deterministic, cudnn.benchmark
    return *switches, os.environ.get(WORKSPACE)


@pytest.fixture(params=["as PyTorch starts", "a host's own"])
def before(request, monkeypatch):
    """What the host has set; benchmarking is what A1111 switches on for some cards."""
    monkeypatch.delenv(WORKSPACE, raising=False)
    if request.param == "a host's own":
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
        monkeypatch.setenv(WORKSPACE, ":16:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    yield modes()
    torch.use_deterministic_algorithms(False)


def test_it_is_on_inside_and_as_before_outside(before):
    with deterministic(True):
        assert modes()[:4] == (True, False, True, False)
        assert modes()[4] in (":4096:8", ":16:8")
    assert modes() == before
    with deterministic(False):
        assert modes() == before


def test_it_ends_with_whatever_ends_it(before):
    with pytest.raises(KeyboardInterrupt), deterministic(True):
        raise KeyboardInterrupt
    assert modes() == before


def test_an_operation_without_such_a_kernel_is_told_in_a_sentence(before):
    with (
        pytest.raises(UserError, match=r"no deterministic kernel for 'put_'.*Turn deterministic off"),
        deterministic(True),
    ):
        torch.zeros(3).put_(torch.tensor([1]), torch.ones(1))
    assert modes() == before


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="a bug"), deterministic(True):
        raise RuntimeError("a bug")


def test_a_training_is_deterministic_in_its_steps_and_leaves_the_host_alone_between_them(
    before, host, dataset, settings, tmp_path
):
    seen = []
    with at_forward(host.denoiser, range(1, 99), lambda _: seen.append(torch.are_deterministic_algorithms_enabled())):
        between = [modes() for _ in train(host, dataset, settings(deterministic=True, preview_every=2), tmp_path)]
    assert seen == [True] * 6
    assert set(between) == {before}
