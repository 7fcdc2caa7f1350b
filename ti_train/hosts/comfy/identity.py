"""What identifies a MODEL, a CLIP and a VAE, wherever ComfyUI keeps it: a run is resumed with the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import comfy.model_base
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...host import digest_of
from ..weights import over

NETWORK = "diffusion_model."
NOISE = "model_sampling"
# Files of Stable Diffusion 1 and XL have none and nothing reads it, so ComfyUI leaves its memory as it finds it.
UNREAD = "clip_l.transformer.text_projection.weight"


def identity_of(model: Any, clip: Any, vae: Any) -> str:
    """Of the weights as their files have them, of LoRAs, and of noise levels that a node has changed.

    The patchers are loaded: then ComfyUI has the originals of what it has patched in place, which is as much as fits
    into the GPU's memory.
    """
    parts = originals(model, NETWORK), originals(clip.patcher), vae.first_stage_model.state_dict().items()
    return digest_of(chain(*parts, patches(model), patches(clip.patcher), noise_levels(model)))


def settings_of(clip: Any, guidance: float) -> str:
    """What nodes have set beside weights: clip skip, the tokenizer's options. guidance: the distilled one; 0: none."""
    skip = "none" if clip.layer_idx is None else clip.layer_idx
    options = [f"{name} {value}" for name, value in sorted(clip.tokenizer_options.items())]
    return ", ".join([f"clip skip {skip}", *options, *([f"guidance {guidance:g}"] if guidance else [])])


def originals(patcher: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of each weight below a prefix, without what ComfyUI has added to it."""
    for name, tensor in patcher.model.state_dict().items():
        if name.startswith(prefix) and name != UNREAD:
            kept = patcher.backup.get(name)
            # over: what was moved out of inference mode can be neither viewed nor copied as it is
            original = tensor if kept is None else over(getattr(kept.weight, "_qdata", kept.weight))
            yield name.removeprefix(prefix), original


def patches(patcher: Any) -> Iterator[tuple[str, Tensor]]:
    """Of each LoRA: the name of each weight that it changes with the strengths, and its own tensors."""
    for name, changes in sorted(patcher.patches.items()):
        for strength, change, strength_of_model, *_ in changes:
            leaves = tree_leaves(getattr(change, "weights", change))
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            numbers = [leaf for leaf in leaves if isinstance(leaf, str | int | float)]
            for tensor in tensors:
                yield f"{name} {strength} {strength_of_model} {numbers}", tensor


def noise_levels(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Those of a node, where they are not the model's own, which are made anew: a clone may have them patched over."""
    changed = model.object_patches.get(NOISE)
    if changed is not None:
        own = comfy.model_base.model_sampling(model.model.model_config, model.model.model_type)
        if not torch.equal(changed.sigmas.cpu(), own.sigmas.cpu()):
            yield NOISE, changed.sigmas
