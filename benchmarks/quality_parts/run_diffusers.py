"""Runs a script of diffusers, unmodified, on any of the worlds' models.

Their VAE may be an AutoencoderTiny, which has no posterior. Their text encoder may be stored in fp16. transformers 5
loads it in fp16 then, and the script trains it so: AdamW's epsilon is zero there, and the first step gives NaN.

python run_diffusers.py SCRIPT ARGUMENT ...
"""

from __future__ import annotations

import json
import runpy
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from torch import Tensor
from transformers import CLIPTextModel


class TinyAsKL(diffusers.AutoencoderTiny):
    """Encodes to what AutoencoderKL would: a posterior, whose every sample is the latents."""

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        latents = super().encode(x, return_dict).latents
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: latents), latents=latents)


def main() -> None:
    script, arguments = sys.argv[1], sys.argv[1:]
    model = Path(arguments[arguments.index("--pretrained_model_name_or_path") + 1])
    if json.loads((model / "vae/config.json").read_text())["_class_name"] == "AutoencoderTiny":
        diffusers.AutoencoderKL = TinyAsKL
    CLIPTextModel.from_pretrained = partial(CLIPTextModel.from_pretrained, dtype=torch.float32)
    sys.argv = arguments
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
