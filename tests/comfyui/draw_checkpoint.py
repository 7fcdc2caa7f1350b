"""Draws a small Stable Diffusion 1 checkpoint, and a LoRA for it, from a seed.

ComfyUI's Python runs it in ComfyUI's folder.

usage: draw_checkpoint.py FOLDER     writes FOLDER/tiny.safetensors and FOLDER/tiny-lora.safetensors

The text encoder has its true shape, which the host takes for granted; the U-Net has one level and the VAE is TAESD's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from inside import enter_comfyui
from safetensors.torch import save_file

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [1],
    "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1], "transformer_depth_middle": 1,
    "context_dim": 768, "num_heads": 8, "num_head_channels": -1, "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip


def main(folder: Path) -> None:
    enter_comfyui()
    import comfy.ops
    import comfy.sd1_clip
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.taesd.taesd import TAESD

    torch.manual_seed(0)
    unet = UNetModel(**UNET, operations=comfy.ops.disable_weight_init, dtype=torch.float16).state_dict()
    text = comfy.sd1_clip.SD1ClipModel(dtype=torch.float16).clip_l.transformer.state_dict()
    checkpoint = drawn(unet, "model.diffusion_model.") | drawn(text, "cond_stage_model.transformer.")
    checkpoint |= drawn(TAESD().state_dict(), "first_stage_model.")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint, folder / "tiny.safetensors")

    lora = {}
    for name, tensor in unet.items():
        if "attn2.to_" in name and name.endswith("weight") and tensor.ndim == 2:
            key = "diffusion_model." + name.removesuffix(".weight")
            lora[key + ".lora_up.weight"] = torch.randn(tensor.shape[0], 4) * 0.05
            lora[key + ".lora_down.weight"] = torch.randn(4, tensor.shape[1]) * 0.05
    save_file(lora, folder / "tiny-lora.safetensors")


def drawn(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Matrices of a gain of one, norms that do nothing, fp16."""
    result = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.ndim == 0:
            value = tensor
        elif "embedding" in name and tensor.ndim == 2:
            value = torch.randn(tensor.shape) * 0.02
        elif tensor.ndim >= 2:
            value = torch.randn(tensor.shape) / tensor[0].numel() ** 0.5
        else:
            value = torch.ones(tensor.shape) if name.endswith("weight") else torch.zeros(tensor.shape)
        result[prefix + name] = value.half().contiguous() if value.is_floating_point() else value.contiguous()
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
