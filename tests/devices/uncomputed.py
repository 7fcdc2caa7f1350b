"""Answers without arithmetic, so that the memory of true shapes is measured in seconds.

Where `Card.computes` is off, a kernel that has to do with a large tensor allocates what it would answer, by PyTorch's
own shapes for the device "meta", and writes nothing into it. Memory that nobody writes to costs the computer nothing
either. Small tensors are computed as ever (indices, noise levels, masks), and a small answer that is not is all ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .card import allocate, on_cpu

LARGE = 2**20  # bytes
ALLOCATIONS = {"empty", "empty_strided"}  # every other factory is made of these two
FUSED_ATTENTION = {"_scaled_dot_product_efficient_attention", "_scaled_dot_product_efficient_attention_backward"}


def goes_uncomputed(name: str, given: Sequence[Tensor]) -> bool:
    return name in ALLOCATIONS | FUSED_ATTENTION or any(tensor.nbytes > LARGE for tensor in given)


def uncomputed(op: Any, arguments: dict[str, Any], written: Sequence[str | None]) -> Any:
    """What the operation answers: the argument that it writes into, or new memory.

    written: for each answer the argument that it is.
    """
    if written and all(written):
        answers = [arguments[name] for name in written if name]
        return answers[0] if len(answers) == 1 else tuple(answers)
    if arguments.get("device") is not None:
        arguments = arguments | {"device": torch.device("meta")}
    with torch._C._AutoDispatchBelowAutograd():
        shaped = op(**tree_map(_shape, arguments))
    return tree_map(_unwritten, shaped)


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, causal: bool, scale: float | None
) -> Any:
    """Memory-efficient attention, which keeps its arguments, its answer and the log of its sums; no [N, N] scores."""
    differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v))
    bias = None if mask is None else mask.to(q.dtype).expand(*q.shape[:-1], k.shape[-2])
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(q, k, v, bias, differentiable, dropout, causal, scale=scale)[0]


def _shape(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def _unwritten(shape: Any) -> Any:
    if not isinstance(shape, Tensor):
        return shape
    tensor = allocate(shape)
    if tensor.nbytes <= LARGE:
        on_cpu(tensor).fill_(1)
    return tensor
