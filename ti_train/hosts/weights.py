"""Making loaded weights differentiable in place, for hosts that load them under `torch.inference_mode()`.

Autograd refuses to save inference tensors, so each is swapped for an alias of the same memory for the time of a
training step. Copying the weights was the alternative: it doubles the memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Weights that ask for no gradient and that autograd can save, while the context lasts."""
    aliases, flags = [], []
    for slots, name, tensor in list(_tensors(modules)):
        if type(tensor.data) is Tensor and tensor.is_inference():
            slots[name] = normal = alias(tensor)
            aliases.append((slots, name, tensor, normal))
        elif tensor.requires_grad:
            flags.append(tensor.requires_grad_(False))
    try:
        yield
    finally:
        for tensor in flags:
            tensor.requires_grad_(True)
        for slots, name, tensor, normal in aliases:
            # The host may have moved or unpatched the model meanwhile; then what stands there now is right.
            if slots.get(name) is normal:
                slots[name] = tensor


def _tensors(modules: tuple[nn.Module, ...]) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Every parameter and buffer, with the dictionary that holds it."""
    for module in chain.from_iterable(m.modules() for m in modules):
        slots: dict[str, Any]
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                if tensor is not None:
                    yield slots, name, tensor


def alias(tensor: Tensor) -> Tensor:
    """A normal tensor over an inference tensor's memory."""
    with torch.inference_mode(False), torch.no_grad():
        normal = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        normal.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
        return nn.Parameter(normal, requires_grad=False) if isinstance(tensor, nn.Parameter) else normal


@contextmanager
def checkpointed(network: nn.Module) -> Iterator[None]:
    """Keeps no activations inside the network's blocks: backward computes them again."""
    blocks = [block for block in _blocks(network) if "forward" not in vars(block)]
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own comes back


def _blocks(network: nn.Module, in_list: bool = False) -> Iterator[nn.Module]:
    """The members of the network's lists of modules, nested lists opened."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from _blocks(child, in_list=True)
        elif in_list:
            yield child
