"""Stable Diffusion 1.5 and XL in their true shapes, with weights drawn at random on the device."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPTokenizer

from ti_train.hosts.diffusers.checkpoint_file import CONFIGS
from ti_train.hosts.diffusers.hardware import pick_device, pick_dtype
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.diffusers.loading import quiet_libraries

from .finding import Options

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"sd15": "SD1.5", "sdxl": "SDXL"}
ONE_ENCODER = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
}
PARTS = {"sd15": ONE_ENCODER, "sdxl": ONE_ENCODER | {"text_encoder_2": ("transformers", "CLIPTextModelWithProjection")}}
PIPELINES = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
NARROW: dict[str, dict[str, dict[str, Any]]] = {  # the same blocks with few channels
    "sd15": {
        "unet": {"block_out_channels": [32, 64, 64, 64], "sample_size": 8},
        "text_encoder": {"num_hidden_layers": 2},
        "vae": {"block_out_channels": [32] * 4},
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [32, 64, 64],
            "attention_head_dim": [4, 4, 4],
            "transformer_layers_per_block": [1, 1, 1],
            "sample_size": 16,
        },
        "text_encoder": {"num_hidden_layers": 2},
        "text_encoder_2": {"num_hidden_layers": 2},
        "vae": {"block_out_channels": [32] * 4},
    },
}  # fmt: skip


def random_host(options: Options, family: str, dtype: str = "auto", drawn_in: torch.dtype | None = None) -> Any:
    """A host over a model of the family, on the device. drawn_in: the dtype of the numbers drawn; None: the host's."""
    import diffusers

    device = pick_device(options.device)
    chosen = pick_dtype(dtype, device)
    torch.manual_seed(0)
    parts: dict[str, Any] = {}
    for part, (library, kind) in PARTS[family].items():
        narrow = NARROW[family].get(part, {}) if options.small else {}
        kept_in = torch.float32 if part == "vae" else drawn_in or chosen
        parts[part] = drawn(CONFIGS / family / part, getattr(import_module(library), kind), narrow, device, kept_in)
    # the demo's words, whose ids are fewer, at CLIP's length
    words = CLIPTokenizer.from_pretrained(ROOT / "demo/model/tokenizer", model_max_length=77)
    scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(CONFIGS / family, subfolder="scheduler")
    parts |= {"tokenizer": words, "scheduler": scheduler}
    if family == "sdxl":
        parts["tokenizer_2"] = words
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return DiffusersHost(getattr(diffusers, PIPELINES[family])(**parts), device, chosen)


def checkpoint_file(options: Options) -> Path:
    """Stable Diffusion 1.5 as ComfyUI and the WebUIs load it, and its .yaml where a WebUI needs one."""
    family = "sd1" if options.small else "sd1-whole"
    file = Path(options.scratch) / "checkpoint" / f"{family}.safetensors"
    if not file.is_file():
        drawing = [sys.executable, str(ROOT / "tests" / "webui" / "draw_checkpoint.py"), str(file), family]
        subprocess.run(drawing, check=True)
    return file


def drawn(folder: Path, kind: Any, narrow: dict[str, Any], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A network of a configuration; every layer has a gain of one, those too that training would begin at zero."""
    with quiet_libraries():
        with torch.device("meta"):
            if hasattr(kind, "load_config"):
                network = kind.from_config({**kind.load_config(folder), **narrow})
            else:
                network = kind(kind.config_class.from_pretrained(folder, **narrow))
        network = network.to(dtype).to_empty(device=device)
    for name, tensor in network.named_parameters():
        if "embedding" in name and tensor.dim() == 2 and "time_embedding" not in name and "add_embedding" not in name:
            nn.init.normal_(tensor, std=0.02)
        elif tensor.dim() > 1:
            nn.init.normal_(tensor, std=1 / math.sqrt(tensor[0].numel()))
        else:
            nn.init.constant_(tensor, float(name.endswith("weight")))
    for _, positions in network.named_buffers():  # CLIP's position_ids, the only ones
        positions.copy_(torch.arange(positions.numel()).view_as(positions))
    return network
