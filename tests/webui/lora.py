"""A LoRA for the drawn checkpoint of Stable Diffusion 1."""

from __future__ import annotations

import torch


def drawn_lora() -> dict[str, torch.Tensor]:
    """For the cross-attention of the small U-Net and a layer of the text encoder, in kohya's names."""
    torch.manual_seed(0)
    places = [f"{part}_attentions_0" for part in ("down_blocks_0", "mid_block", "up_blocks_0")]
    shapes = {f"lora_unet_{p}_transformer_blocks_0_attn2_to_{x}": (320, 768) for p in places for x in "kv"}
    shapes["lora_te_text_model_encoder_layers_0_mlp_fc1"] = (3072, 768)
    lora = {}
    for name, (rows, columns) in shapes.items():
        lora |= {f"{name}.lora_up.weight": 0.1 * torch.randn(rows, 4), f"{name}.alpha": torch.tensor(4.0)}
        lora[f"{name}.lora_down.weight"] = 0.1 * torch.randn(4, columns)
    return lora
