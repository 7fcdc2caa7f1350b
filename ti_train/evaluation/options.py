"""What the options of an evaluation mean, for the command and for the nodes."""

from __future__ import annotations

FOUND = "do the samples find their own subject among them?"
HELP = {
    "guidance": "classifier-free guidance (cfg)",
    "seed": "seed of the first image; each further image adds 1",
    "resolution": "side of the sampled images in pixels; 0 = the model's own (Stable Diffusion 1: 512)",
    "dino": "DINOv2, a folder as transformers has it: image similarity in its space too, which tells instances apart",
    "gallery": f"images of look-alikes: {FOUND}",
}


def sentence(option: str) -> str:
    """An option's meaning, for a tooltip."""
    text = HELP[option]
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")
