"""Loading models completely in ComfyUI, so that weights stay in place between forward and backward."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_management as management
import torch
from torch import nn

from ...errors import UserError

log = logging.getLogger("ti_train")
MIB = 2**20


def trainable_model(model: Any) -> Any:
    """A MODEL whose weights stay in place between forward and backward: itself, or ComfyUI's non-dynamic copy."""
    return _resident(model) if _is_dynamic(model) else model


def trainable_clip(clip: Any) -> Any:
    """A clone of a CLIP with the same property."""
    clone = clip.clone()
    if _is_dynamic(clip.patcher):
        clone.patcher = _resident(clip.patcher)
        clone.cond_stage_model = clone.patcher.model
    return clone


def _is_dynamic(patcher: Any) -> bool:
    """Whether weights are dynamic (ComfyUI 0.33 on a GPU): loaded layer by layer into reused buffers."""
    return hasattr(patcher, "is_dynamic") and bool(patcher.is_dynamic())


def _resident(patcher: Any) -> Any:
    name, size = type(patcher.model).__name__, patcher.model_size() // MIB
    try:
        whole = patcher.get_non_dynamic_delegate()
    except RuntimeError as error:  # the host does not know the file to load it from
        raise UserError(
            f"{name} is loaded layer by layer, which training does not support, and ComfyUI cannot load it completely "
            f"({error}). Use one of ComfyUI's loader nodes, or start ComfyUI with --disable-dynamic-vram."
        ) from None
    log.info("%s is loaded layer by layer; training uses ComfyUI's complete copy of it (%d MiB).", name, size)
    return whole


def load_whole(model: Any, clip: Any, memory: int = 0) -> None:
    """Loads both completely, with their LoRAs, and unloads others until `memory` bytes are free.

    Raises UserError if the GPU's size or ComfyUI's settings prevent that.
    """
    on_gpu = [patcher for patcher in (model, clip) if not management.is_device_cpu(patcher.load_device)]
    needed, there = sum(patcher.model_size() for patcher in on_gpu), management.get_total_memory(model.load_device)
    sizes = f"{needed // MIB} MiB of weights in GPU memory at once, and the GPU has {there // MIB} MiB in all"
    if needed > there:
        name, advice = type(model.model).__name__, "Use a model in half precision, or a smaller one."
        if clip in on_gpu and model.model_size() < there:
            advice = "Start ComfyUI with --lowvram, which keeps the text encoders on the CPU."
        raise UserError(f"{name} and its text encoders do not fit: training needs {sizes}. {advice}")
    management.load_models_gpu([model, clip], memory_required=memory, force_full_load=True)
    for patcher in (model, clip):
        if getattr(patcher.model, "model_lowvram", False):
            raise UserError(
                f"ComfyUI has loaded {type(patcher.model).__name__} in parts. Training needs {sizes}. "
                "Start ComfyUI without --novram (--lowvram works)."
            )


def cast_bytes(encoders: nn.Module) -> int:
    """What autograd keeps of a call of text encoders in half precision: ComfyUI casts their matrices to fp32 in it."""
    matrices = [module.weight for module in encoders.modules() if isinstance(module, nn.Linear)]
    return sum(4 * weight.numel() for weight in matrices if weight.dtype != torch.float32)
