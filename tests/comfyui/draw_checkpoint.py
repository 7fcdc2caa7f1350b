"""Draws a small checkpoint of a Stable Diffusion family, and a LoRA for it, from a seed.

ComfyUI's Python runs it in ComfyUI's folder.

usage: draw_checkpoint.py FAMILY FOLDER     writes FOLDER/FAMILY.safetensors and FOLDER/FAMILY-lora.safetensors

The text encoders have their true shapes, which the host takes for granted; the U-Net has as few channels and blocks as
the host still tells the family by, and the VAE is TAESD's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from inside import enter_comfyui
from safetensors.torch import save_file

COMMON = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip
SD2 = {
    "num_res_blocks": [2] * 4, "channel_mult": [1] * 4, "context_dim": 1024, "num_heads": -1, "num_head_channels": 64,
    "transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_output": [1] * 9 + [0] * 3,
    "transformer_depth_middle": 1, "use_linear_in_transformer": True,
}  # fmt: skip
UNETS = {
    "sd1": {
        "num_res_blocks": [1], "channel_mult": [1], "context_dim": 768, "num_heads": 8, "num_head_channels": -1,
        "transformer_depth": [1], "transformer_depth_output": [1, 1], "transformer_depth_middle": 1,
    },
    "sd1-whole": {  # its true shape, to measure time and memory
        "num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "context_dim": 768, "num_heads": 8,
        "num_head_channels": -1, "transformer_depth": [1] * 6 + [0] * 2,
        "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1,
    },
    "sd2": SD2,
    "sd2-v": SD2,
    "sdxl": {
        "num_res_blocks": [2] * 3, "channel_mult": [1] * 3, "context_dim": 2048, "num_heads": -1,
        "num_head_channels": 64, "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10,
        "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816,
    },
}  # fmt: skip
TOLD_BY = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"  # v-prediction where it spreads


def main(family: str, folder: Path) -> None:
    enter_comfyui("--cpu")
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.taesd.taesd import TAESD

    torch.manual_seed(0)
    operations = comfy.ops.disable_weight_init
    unet = UNetModel(**COMMON | UNETS[family], operations=operations, dtype=torch.float16).state_dict()
    checkpoint = drawn(unet, "model.diffusion_model.") | text_encoders(family)
    checkpoint |= drawn(TAESD().state_dict(), "first_stage_model.")
    if family == "sd2-v":
        checkpoint[TOLD_BY] = torch.randn(checkpoint[TOLD_BY].shape).mul(0.2).half()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint, folder / f"{family}.safetensors")

    lora = {}
    for name, tensor in unet.items():
        if "attn2.to_" in name and name.endswith("weight") and tensor.ndim == 2:
            key = "diffusion_model." + name.removesuffix(".weight")
            lora[key + ".lora_up.weight"] = torch.randn(tensor.shape[0], 4) * 0.05
            lora[key + ".lora_down.weight"] = torch.randn(4, tensor.shape[1]) * 0.05
    save_file(lora, folder / f"{family}-lora.safetensors")


def text_encoders(family: str) -> dict[str, torch.Tensor]:
    """Under the keys of the family's checkpoints, which the host writes for 2 and XL."""
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.supported_models
    import comfy.text_encoders.sd2_clip

    if family.startswith("sd1"):
        text = comfy.sd1_clip.SD1ClipModel(dtype=torch.float16).clip_l.transformer.state_dict()
        return drawn(text, "cond_stage_model.transformer.")
    if family == "sdxl":
        kind, model = comfy.supported_models.SDXL, comfy.sdxl_clip.SDXLClipModel(dtype=torch.float16)
    else:
        kind, model = comfy.supported_models.SD20, comfy.text_encoders.sd2_clip.SD2ClipModel(dtype=torch.float16)
    saved = kind.process_clip_state_dict_for_saving(None, drawn(model.state_dict(), ""))
    return {key: tensor.contiguous() for key, tensor in saved.items()}


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
    main(sys.argv[1], Path(sys.argv[2]).resolve())
