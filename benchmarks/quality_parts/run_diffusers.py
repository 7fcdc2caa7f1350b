"""Runs a script of diffusers, unmodified, on a model whose VAE is an AutoencoderTiny: such a VAE has no posterior.

python run_diffusers.py SCRIPT ARGUMENT ...
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
from torch import Tensor


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
    sys.argv = arguments
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
