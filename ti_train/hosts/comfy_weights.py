"""Making a model that ComfyUI has loaded differentiable, in place, and putting everything back.

Nodes run under `torch.inference_mode()`, so the loaded weights are inference tensors, which autograd refuses to save.
Each is swapped for an alias of the same memory for the time of a training step. Copying the weights was the
alternative: it doubles the memory.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import comfy.model_management as management
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import UserError

log = logging.getLogger("ti_train")
MIB = 2**20


def trainable_model(model: Any) -> Any:
    """A MODEL whose weights stay where they are between forward and backward: itself, or the host's own copy."""
    return _resident(model) if _is_dynamic(model) else model


def trainable_clip(clip: Any) -> Any:
    """The same for a CLIP."""
    clone = clip.clone()
    if _is_dynamic(clip.patcher):
        clone.patcher = _resident(clip.patcher)
        clone.cond_stage_model = clone.patcher.model
    return clone


def _is_dynamic(patcher: Any) -> bool:
    """Dynamic weights (ComfyUI 0.33 on a GPU) are fetched layer by layer into buffers that are used again."""
    return hasattr(patcher, "is_dynamic") and bool(patcher.is_dynamic())


def _resident(patcher: Any) -> Any:
    name, size = type(patcher.model).__name__, patcher.model_size() // MIB
    try:
        whole = patcher.get_non_dynamic_delegate()
    except RuntimeError as error:  # the host cannot load it a second time: it does not know the file
        raise UserError(
            f"{name} is loaded layer by layer, which cannot be trained, and ComfyUI has no file to load it whole from "
            f"({error}). Load it with a loader node of ComfyUI, or start ComfyUI with --disable-dynamic-vram."
        ) from None
    log.info("%s is loaded layer by layer; training uses ComfyUI's own whole copy of it (%d MiB).", name, size)
    return whole


def load_whole(*patchers: Any) -> None:
    """Has the host load models completely, with their LoRAs. Raises UserError where its settings do not let it."""
    management.load_models_gpu(list(patchers), force_full_load=True)
    for patcher in patchers:
        if getattr(patcher.model, "model_lowvram", False):
            raise UserError(
                f"{type(patcher.model).__name__} ({patcher.model_size() // MIB} MiB) does not fit into the GPU's "
                "memory whole, which training needs. Close other programs, or start ComfyUI without --lowvram "
                "and --novram."
            )


@contextmanager
def differentiable(*modules: nn.Module) -> Iterator[None]:
    """Frozen weights that autograd can save, while the context lasts."""
    aliases, flags = [], []
    for slots, name, tensor in list(_tensors(modules)):
        if type(tensor.data) is Tensor and tensor.is_inference():
            alias = _alias(tensor)
            slots[name] = alias
            aliases.append((slots, name, tensor, alias))
        elif tensor.requires_grad:
            flags.append(tensor.requires_grad_(False))
    training = getattr(management, "in_training", None)  # from 0.33; some models then avoid fused kernels
    if training is not None:
        management.in_training = True
    try:
        yield
    finally:
        if training is not None:
            management.in_training = training
        for tensor in flags:
            tensor.requires_grad_(True)
        for slots, name, tensor, alias in aliases:
            # The host may have moved or unpatched the model meanwhile; then what stands there now is right.
            if slots.get(name) is alias:
                slots[name] = tensor


def _tensors(modules: tuple[nn.Module, ...]) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Every parameter and buffer, with the dictionary that holds it."""
    for module in chain.from_iterable(m.modules() for m in modules):
        slots: dict[str, Any]
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                if tensor is not None:
                    yield slots, name, tensor


def _alias(tensor: Tensor) -> Tensor:
    """A normal tensor over an inference tensor's memory."""
    with torch.inference_mode(False), torch.no_grad():
        alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
        return nn.Parameter(alias, requires_grad=False) if isinstance(tensor, nn.Parameter) else alias


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
