"""Stable Diffusion 1.5 and XL in their true shapes, fp16, without values: memory nobody writes to costs nothing.

Small tensors are zeros: the pretended card computes with those, and what is encoded must be finite.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from devices.uncomputed import LARGE  # noqa: E402
from tiny_checkpoint import TEXT, original_unet, original_vae  # noqa: E402

from ti_train.hosts.diffusers.checkpoint_file import CONFIGS  # noqa: E402
from ti_train.hosts.diffusers.loading import clip_tokenizer, skeleton  # noqa: E402

LAYOUTS = {"sd15": "sd1", "sdxl": "sdxl"}  # family -> the layout of its text encoders in a checkpoint


def pipeline(family: str) -> Any:
    """The pipeline as it is loaded from a file in half precision, on the CPU."""
    import diffusers

    folder, index = CONFIGS / family, _index(family)
    parts: dict[str, Any] = {name: clip_tokenizer(folder / name) for name in index if name.startswith("tokenizer")}
    parts |= {name: _module(folder / name, *index[name]) for name in _modules(family)}
    parts["scheduler"] = getattr(diffusers, index["scheduler"][1]).from_pretrained(folder / "scheduler")
    if family == "sdxl":
        return diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    without = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(**parts, **without)


def checkpoint(family: str) -> dict[str, Tensor]:
    """All weights under the names that they have in a checkpoint file."""
    folder, index = CONFIGS / family, _index(family)
    shapes = {name: skeleton(folder / name, *index[name]).state_dict() for name in _modules(family)}
    layers = json.loads((folder / "unet" / "config.json").read_text())["layers_per_block"]
    levels = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    tensors = original_unet(shapes["unet"], layers) | original_vae(shapes["vae"], levels)
    for part, (layout, prefix) in TEXT[LAYOUTS[family]].items():
        tensors |= layout(shapes[part], prefix)
    return {name: without_values(torch.empty(tensor.shape, dtype=torch.float16)) for name, tensor in tensors.items()}


def without_values(tensor: Tensor) -> Tensor:
    """The same tensor, of zeros if it is small."""
    return tensor.zero_() if tensor.nbytes <= LARGE else tensor


def _index(family: str) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((CONFIGS / family / "model_index.json").read_text())
    return index


def _modules(family: str) -> list[str]:
    return [name for name in _index(family) if name in ("unet", "vae") or name.startswith("text_encoder")]


def _module(folder: Path, library: str, kind: str) -> Any:
    module = skeleton(folder, library, kind).half().to_empty(device="cpu")
    for parameter in module.parameters():
        without_values(parameter.data)
    for name, buffer in module.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]))
    return module
