"""A CLIP of open_clip with a few random weights, as a file: it understands nothing, but computes as a real one does."""

from __future__ import annotations

import json
from pathlib import Path

import torch

NAME = "tiny-clip"


def write_clip(folder: Path) -> Path:
    """Makes the model known to open_clip and writes weights for it."""
    import open_clip

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / f"{NAME}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder / f"{NAME}.json")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(NAME)
    torch.save(model.state_dict(), folder / "weights.pt")
    return folder / "weights.pt"
