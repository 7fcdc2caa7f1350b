"""What all trainers are given: a model folder in diffusers' layout, images, and the settings of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "demo/model"
FAMILIES = ("sd15", "sdxl")  # whose true shapes are drawn with random weights
INIT = "star"  # a single token of CLIP's vocabulary and of the drawn worlds': diffusers' script takes no other


@dataclass(frozen=True)
class Case:
    """The equal work. model: a folder; images: a folder with nothing else in it; device: auto, cpu or cuda."""

    model: Path
    images: Path
    pixels: int
    batch: int
    dtype: str
    steps: int
    threads: int
    device: str
    scratch: Path

    @property
    def is_sdxl(self) -> bool:
        return (self.model / "text_encoder_2").is_dir()

    @property
    def is_original_shape(self) -> bool:
        """Whether the U-Net has the widths of Stable Diffusion 1 or XL, which kohya's scripts have built in."""
        config = json.loads((self.model / "unet/config.json").read_text())
        return config["block_out_channels"] in ([320, 640, 1280, 1280], [320, 640, 1280])

    @property
    def has_posterior(self) -> bool:
        return json.loads((self.model / "vae/config.json").read_text())["_class_name"] != "AutoencoderTiny"


def model_folder(name: str, scratch: Path) -> Path:
    """A folder's own path; "embedded"; or a family, whose model is drawn once, in a process of its own."""
    if name == "embedded":
        return EMBEDDED
    if name not in FAMILIES:
        return Path(name)
    folder = scratch / name
    if not (folder / "model_index.json").is_file():
        command = [sys.executable, "-m", "benchmarks.peers_parts.true_models", name, str(folder)]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


def noise_images(folder: Path, side: int, count: int = 5) -> Path:
    """Writes images of noise, which no cache and no compression can make equal."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{i}.png")
    return folder
