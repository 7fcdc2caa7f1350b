"""Loading models completely in ComfyUI, so that weights stay in place between forward and backward."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as management

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


def load_whole(*patchers: Any, memory: int = 0) -> None:
    """Loads models completely, with their LoRAs, and unloads others until `memory` bytes are free.

    Raises UserError if ComfyUI's settings prevent that.
    """
    management.load_models_gpu(list(patchers), memory_required=memory, force_full_load=True)
    for patcher in patchers:
        if getattr(patcher.model, "model_lowvram", False):
            raise UserError(
                f"ComfyUI has loaded {type(patcher.model).__name__} ({patcher.model_size() // MIB} MiB) in parts, "
                "and training needs all of it in GPU memory. Start ComfyUI without --novram (--lowvram works)."
            )


@contextmanager
def marked_as_training() -> Iterator[None]:
    """Sets ComfyUI's training flag (0.33 and later), with which some models avoid fused kernels."""
    before = getattr(management, "in_training", None)
    if before is None:
        yield
        return
    management.in_training = True
    try:
        yield
    finally:
        management.in_training = before
