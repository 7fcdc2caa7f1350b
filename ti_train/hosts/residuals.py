"""Residuals that a host adds in place to a tensor that a norm keeps for backward, which PyTorch refuses then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn


def norms_in(*modules: nn.Module) -> list[nn.Module]:
    """The norms of modules by the names of their classes: each host and model family has classes of its own."""
    return [part for module in modules for part in module.modules() if "Norm" in type(part).__name__]


@contextmanager
def copied_for(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Gives each norm a copy of its input.

    `copied_before_changes` copies only what is changed, but watches every call, which takes the CPU twice as long; and
    it has no effect inside a checkpoint that is not reentrant (the gradient was wrong by 8 %).
    """
    with ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(_copied).remove)
        yield


def _copied(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs[0].clone(), *inputs[1:]
