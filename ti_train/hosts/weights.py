"""Using weights that were loaded in `torch.inference_mode()` in a differentiable forward pass, without copies.

Autograd cannot save inference tensors, so each is replaced by an alias of the same memory during a training step.
Copying the weights would double the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


def does_not_fit(name: str, advice: str) -> UserError:
    """The error if a host cannot load all weights of a model at once. advice: sentences."""
    return UserError(f"{name} does not fit into GPU memory completely, as training needs. {advice}")


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Makes weights savable by autograd, without gradients of their own, within the context."""
    restore_inference_tensors(*modules)
    with ExitStack() as stack:
        for slots, name, tensor in list(_tensors(modules)):
            if type(tensor.data) is Tensor and tensor.is_inference():
                slots[name] = normal = alias(tensor)
                stack.callback(_put_back, slots, name, tensor, normal)
            elif tensor.requires_grad:
                stack.callback(tensor.requires_grad_(False).requires_grad_, True)
        yield


def restore_inference_tensors(*modules: nn.Module) -> None:
    """Repairs weights that were created in inference mode and moved outside of it.

    Such a tensor has no version counter but is not an inference tensor either, so no view of it can be made in any
    mode. This makes it an inference tensor over the same memory again.
    """
    for _, _, tensor in _tensors(modules):
        if type(tensor.data) is Tensor and not tensor.is_inference() and not _counts_versions(tensor):
            _set_data(tensor, tensor)


def _put_back(slots: dict[str, Any], name: str, tensor: Tensor, normal: Tensor) -> None:
    """Undoes a swap, unless the host has replaced the tensor meanwhile."""
    if slots.get(name) is not normal:
        return
    if normal.data_ptr() != tensor.data_ptr():  # the host has moved the model, and the alias with it
        _set_data(tensor, normal)
    slots[name] = tensor


def _counts_versions(tensor: Tensor) -> bool:
    try:
        return tensor._version >= 0
    except RuntimeError:
        return False


def _set_data(tensor: Tensor, source: Tensor) -> None:
    """Makes the same tensor object an inference tensor over the memory of `source`."""
    with torch.inference_mode():
        tensor.data = over(source)


def _tensors(modules: tuple[nn.Module, ...]) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Every parameter and buffer: (dictionary that holds it, name, tensor)."""
    for module in chain.from_iterable(m.modules() for m in modules):
        slots: dict[str, Any]
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                if tensor is not None:
                    yield slots, name, tensor


def alias(tensor: Tensor) -> Tensor:
    """A normal tensor over the memory of an inference tensor."""
    with torch.inference_mode(False), torch.no_grad():
        normal = over(tensor)
        return nn.Parameter(normal, requires_grad=False) if isinstance(tensor, nn.Parameter) else normal


def over(tensor: Tensor) -> Tensor:
    """A new tensor over the same memory, of the current mode; a view would have the mode of the original."""
    made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    made.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return made
