"""The drawn checkpoint as the diffusers host: an independent implementation of the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ti_train.hosts.base import Slot
from ti_train.hosts.diffusers import DiffusersHost
from ti_train.objective import add_noise, denoising_loss, target

SMALL = {
    "block_out_channels": (320,), "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
}  # fmt: skip
PROMPTS = [("a photo of a ", Slot("*")), ("a rendering of the ", Slot("*"), ", in the rain")]


def diffusers_host(checkpoint: Path, clip_folder: Path) -> DiffusersHost:
    """In fp32, its configurations those that diffusers has for Stable Diffusion 1.5."""
    stored = {name: tensor.float() for name, tensor in load_file(checkpoint).items() if tensor.is_floating_point()}
    small = "model.diffusion_model.input_blocks.3.0.in_layers.0.weight" not in stored
    shape: dict[str, Any] = SMALL if small else {}
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8, **shape)
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(stored), dict(unet.config)))
    widths = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=widths, layers_per_block=2, latent_channels=4, sample_size=512,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    )  # fmt: skip
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(stored), dict(vae.config)))
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(clip_folder))
    prefix = "cond_stage_model.transformer."
    weights = {n.removeprefix(prefix): t for n, t in stored.items() if n.startswith(prefix)}
    if not any(name.startswith("text_model.") for name in text.state_dict()):  # from transformers 5
        weights = {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    text.load_state_dict(weights)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    pipeline = StableDiffusionPipeline(
        vae,
        text,
        CLIPTokenizer.from_pretrained(clip_folder),
        unet,
        scheduler,
        None,
        None,
        requires_safety_checker=False,
    )
    return DiffusersHost(pipeline, torch.device("cpu"), torch.float32)


def inputs() -> dict[str, torch.Tensor]:
    """Two pictures of 64 pixels, their noise and noise levels, and a word of two vectors, from a seed."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "x0": normal(2, 4, 8, 8), "noise": normal(2, 4, 8, 8), "timesteps": torch.tensor([150, 700]),
        "vectors": 0.02 * normal(2, 768), "pictures": normal(1, 3, 64, 64).clamp(-1, 1),
    }  # fmt: skip


def gradient(host: DiffusersHost, data: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    """The loss, and its gradient [2, 768] in the word's vectors."""
    vectors = data["vectors"].clone().requires_grad_()
    sigma = host.sigmas[data["timesteps"]]
    with host.training():
        noisy = add_noise(data["x0"], data["noise"], sigma, host.prediction)
        predicted = host.predict(noisy, sigma, host.encode(PROMPTS, {"*": {"clip_l": vectors}}))
        loss = denoising_loss(predicted, target(data["x0"], data["noise"], sigma, host.prediction)).mean()
        loss.backward()
    assert vectors.grad is not None
    return float(loss.detach()), vectors.grad
