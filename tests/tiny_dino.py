"""A DINOv2 of transformers with a few random weights, as a folder: it computes as a real one does."""

from __future__ import annotations

from pathlib import Path

import torch


def write_dino(folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 518, "patch_size": 14}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    return folder
