"""Loading models in ComfyUI for training."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_management as management

from ...errors import UserError

log = logging.getLogger("ti_train")
MIB = 2**20


def trainable_model(model: Any) -> Any:
    """A MODEL whose weights stay in place during a step: itself, or ComfyUI's non-dynamic copy."""
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
            f"{name} is loaded layer by layer, which training does not support, and ComfyUI cannot load it otherwise "
            f"({error}). Use one of ComfyUI's loader nodes, or start ComfyUI with --disable-dynamic-vram."
        ) from None
    log.info("%s is loaded layer by layer; training uses ComfyUI's other copy of it (%d MiB).", name, size)
    return whole


def load(model: Any, clip: Any, memory: int = 0) -> None:
    """Loads both, with their LoRAs, and unloads others until `memory` bytes are free.

    Completely if there is room for that; else ComfyUI leaves a part of the weights in system memory and fetches each
    layer when it computes with it, as it samples such a model.
    """
    on_gpu = [patcher for patcher in (model, clip) if not management.is_device_cpu(patcher.load_device)]
    weights, there = sum(patcher.model_size() for patcher in on_gpu), management.get_total_memory(model.load_device)
    whole = weights + memory + management.extra_reserved_memory() <= there
    management.load_models_gpu([model, clip], memory_required=memory, force_full_load=whole)
