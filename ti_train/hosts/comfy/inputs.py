"""What a node is given if a loader's checkpoint lacks a part: None, or a VAE without weights."""

from __future__ import annotations

from typing import Any

from ...errors import UserError

PARTS = {
    "model": ("diffusion model", "Load Diffusion Model"),
    "clip": ("clip or text encoder model", "Load CLIP"),
    "vae": ("VAE", "Load VAE"),
}


def check_inputs(**inputs: Any) -> None:
    """Raises UserError for an empty input, in the words of ComfyUI's own nodes (nodes.py, comfy/sd.py)."""
    for name, value in inputs.items():
        if value is None or (name == "vae" and getattr(value, "first_stage_model", value) is None):
            part, loader = PARTS[name]
            raise UserError(
                f"ERROR: {name} input is invalid: None. If the {name} is from a checkpoint loader node your checkpoint "
                f"does not contain a valid {part}. Use a complete checkpoint, or connect {loader}."
            )
