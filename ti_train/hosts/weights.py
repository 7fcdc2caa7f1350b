"""Making loaded weights differentiable in place, for hosts that load them under `torch.inference_mode()`.

Autograd refuses to save inference tensors, so each is swapped for an alias of the same memory for the time of a
training step. Copying the weights was the alternative: it doubles the memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import UserError


def does_not_fit(name: str, advice: str) -> UserError:
    """What to raise where a host cannot have all of a model's weights where they compute; advice: whole sentences."""
    return UserError(f"{name} does not fit into the GPU's memory whole, which training needs. {advice}")


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Weights that ask for no gradient and that autograd can save, while the context lasts."""
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
    """Makes weights usable that somebody made in inference mode and last moved outside of it.

    Such a tensor counts no versions and is no inference tensor either: no view of it can be made, in no mode. Over the
    same memory it becomes the inference tensor again that it was before.
    """
    for _, _, tensor in _tensors(modules):
        if type(tensor.data) is Tensor and not tensor.is_inference() and not _counts_versions(tensor):
            _set_data(tensor, tensor)


def _put_back(slots: dict[str, Any], name: str, tensor: Tensor, normal: Tensor) -> None:
    """Undoes a swap, unless the host has put a tensor of its own there meanwhile: then that one is right."""
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
    """Puts the very same tensor over the memory of `source`, as an inference tensor."""
    with torch.inference_mode():
        tensor.data = _over(source)


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
        normal = _over(tensor)
        return nn.Parameter(normal, requires_grad=False) if isinstance(tensor, nn.Parameter) else normal


def _over(tensor: Tensor) -> Tensor:
    """A new tensor over the memory of another, of the mode that it is made in: a view would be of the other's mode."""
    made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    made.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return made


@contextmanager
def checkpointed(
    network: nn.Module, precision: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Iterator[None]:
    """Keeps no activations inside the network's blocks: backward computes them again.

    precision: the context of the forward pass, where it is not PyTorch's autocast, which backward enters by itself.
    """
    blocks = [block for block in _blocks(network) if "forward" not in vars(block)]
    for block in blocks:
        block.forward = functools.partial(
            checkpoint, block.forward, use_reentrant=False, context_fn=lambda: (nullcontext(), precision())
        )
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own comes back


def _blocks(network: nn.Module, in_list: bool = False) -> Iterator[nn.Module]:
    """The members of the network's lists of modules, nested lists opened.

    Of a member that has a list of its own it is that list's members: one of Stable Diffusion XL's transformers has ten
    blocks, whose activations would all be there at once while it is computed again.
    """
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from _blocks(child, in_list=True)
        elif in_list and any(isinstance(part, nn.ModuleList) for part in child.modules()):
            yield from _blocks(child)
        elif in_list:
            yield child
