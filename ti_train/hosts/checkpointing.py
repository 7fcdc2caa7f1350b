"""Gradient checkpointing (Chen et al. 2016): parts of a network whose activations backward computes again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint


class Recomputed(Enum):
    """What backward computes again: more of it needs less memory and more time."""

    NOTHING = 0
    FEED_FORWARDS = 1  # of a U-Net's transformers: a quarter to two fifths of a step's memory
    BLOCKS = 2


@contextmanager
def checkpointed(
    network: nn.Module,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
    what: Recomputed = Recomputed.BLOCKS,
) -> Iterator[None]:
    """Within the context, activations of these parts of the network are recomputed in the backward pass.

    context: that of the forward pass, if it is another than PyTorch's autocast, which is restored automatically.
    """
    parts = [part for part in _parts(network, what) if "forward" not in vars(part)]
    for part in parts:
        part.forward = functools.partial(recomputed, part.forward, context)
    try:
        yield
    finally:
        for part in parts:
            del part.forward  # restores the method of the class


def _parts(network: nn.Module, what: Recomputed) -> Iterator[nn.Module]:
    if what is Recomputed.BLOCKS:
        yield from _blocks(network)
    elif what is Recomputed.FEED_FORWARDS:  # of this name in CompVis' code, on which the hosts' is built, and diffusers
        yield from (part for part in network.modules() if type(part).__name__ == "FeedForward")


def recomputed(
    forward: Callable[..., Any], context: Callable[[], AbstractContextManager[object]], /, *args: Any, **kwargs: Any
) -> Any:
    """Calls a block so that backward computes it again, from copies of its inputs, to which blocks may add in place.

    Hosts may add in place to what it returns as well, for which PyTorch wants no view.

    Reentrant: a block that changes its own tensors in place, as Flux's do, is recomputed with the saved-tensor hooks of
    the step, which keep what backward needs. Without reentry PyTorch replaces these hooks by its own: no error, but a
    gradient that is wrong by percents.
    """
    given, structure = tree_flatten((args, kwargs))
    places = [i for i, value in enumerate(given) if isinstance(value, Tensor)]
    answers: list[Any] = []

    def run(*tensors: Tensor) -> tuple[Any, ...]:
        values = list(given)
        for i, tensor in zip(places, tensors, strict=True):
            values[i] = tensor.clone() if tensor.is_floating_point() else tensor
        positional, named = tree_unflatten(values, structure)
        with context() if torch.is_grad_enabled() else nullcontext():  # while backward computes it again
            answer = forward(*positional, **named)
        flat, answers[:] = tree_flatten(answer)[0], [tree_flatten(answer)[1]]
        return tuple(value.clone() if isinstance(value, Tensor) and value._is_view() else value for value in flat)

    tensors = [given[i] for i in places]
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return forward(*args, **kwargs)
    answer = checkpoint(run, *tensors, use_reentrant=True)
    return tree_unflatten(answer, answers[0])


def _blocks(network: nn.Module, in_list: bool = False) -> Iterator[nn.Module]:
    """The members of the network's module lists, recursively.

    A member with blocks of its own is replaced by these: a transformer of Stable Diffusion XL has ten, whose
    activations would all be in memory at once during recomputation.
    """
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from _blocks(child, in_list=True)
        elif in_list and _has_blocks(child):
            yield from _blocks(child)
        elif in_list:
            yield child


def _has_blocks(module: nn.Module) -> bool:
    """Whether a list in it holds modules of several layers; lists of single layers are part of many blocks."""
    members = (member for part in module.modules() if isinstance(part, nn.ModuleList) for member in part)
    return any(next(part.children(), None) is not None for member in members for part in member.children())
