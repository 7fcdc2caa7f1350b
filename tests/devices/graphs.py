"""CUDA graphs of the pretended card: they compute as always, in the places that a recorded graph would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def graphed(function: Callable[..., tuple[Tensor, ...]], examples: tuple[Tensor, ...], **_: Any) -> Callable[..., Any]:
    """Of torch.cuda.make_graphed_callables what its callers have to know.

    Each call overwrites the inputs, activations and outputs of the one before, and each backward pass the gradients.
    """
    differentiable = [example for example in examples if example.requires_grad]
    outputs: tuple[Tensor, ...] = ()  # of the last call, with its graph
    places: list[Tensor] = []  # of the outputs
    gradients: list[Tensor] = []  # their places

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, *given: Tensor) -> tuple[Tensor, ...]:
            nonlocal outputs
            with torch.no_grad():
                for example, tensor in zip(examples, given, strict=True):
                    example.copy_(tensor)
            with torch.enable_grad():
                outputs = function(*examples)
            overwrite(places, outputs)
            return tuple(place.detach() for place in places)

        @staticmethod
        def backward(_ctx: Any, *arriving: Tensor) -> tuple[Tensor | None, ...]:
            overwrite(gradients, torch.autograd.grad(outputs, differentiable, arriving))
            found = iter(gradients)
            return tuple(next(found).detach() if example.requires_grad else None for example in examples)

    return Graphed.apply


def overwrite(places: list[Tensor], tensors: tuple[Tensor, ...]) -> None:
    if not places:
        places += [torch.empty_like(tensor, requires_grad=False) for tensor in tensors]
    with torch.no_grad():
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)
