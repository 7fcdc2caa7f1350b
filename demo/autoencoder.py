"""Trains the demo model's autoencoder on crops of drawn pictures: latents 8 times smaller."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from einops import rearrange
from torch import Tensor, nn

CROP, BATCH = 64, 16
LATENT_NOISE = 0.06  # so that the decoder forgives the denoiser's small errors
WIDTH = 32
PEAK_RATE = 1.5e-3
POLISH_RATE = 1e-3
CONTRAST = 3.2


def carry_colour(stage: nn.Sequential) -> None:
    """Makes a stage's first three channels carry the picture's colour through it, at first."""
    for layer in stage:
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.data
            kept = range(min(3, weight.shape[0], weight.shape[1]))
            weight[list(kept)] *= 0.1
            for i in kept:
                if layer.stride == (2, 2):
                    weight[i, i] += 1 / 9
                else:
                    weight[i, i, 1, 1] += 1


def new() -> AutoencoderTiny:
    """An untrained autoencoder whose latents are, at first, little more than small pictures.

    It has no norm layers: with PyTorch's default weights colour would be learned last, and slowly.
    """
    widths = (WIDTH,) * 4
    model = AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if name.endswith("conv.4"):  # the last layer of a residual branch
                layer.weight.data.mul_(0.1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    encoder, decoder = model.encoder.layers, model.decoder.layers
    for last in (encoder[-1], decoder[-1]):
        last.weight.data.mul_(0.1)
    carry_colour(encoder)
    carry_colour(decoder)
    # Colours of 0 to 1 become latents of about unit spread, and back.
    encoder[-1].weight.data[:3] *= CONTRAST
    encoder[-1].bias.data[:3] = -CONTRAST / 2
    decoder[0].weight.data[:3] /= CONTRAST
    decoder[0].bias.data[:3] = 0.5
    return model


def crops(pictures: Tensor) -> Tensor:
    """A batch of random crops, mirrored half of the time, in [-1, 1]."""
    picks = torch.randint(0, len(pictures), (BATCH,))
    tops = torch.randint(0, pictures.shape[1] - CROP + 1, (BATCH, 2)).tolist()
    pieces = [pictures[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(picks, tops, strict=True)]
    batch = rearrange(pieces, "n h w c -> n c h w").float() / 127.5 - 1
    return batch.flip(3) if torch.rand(()) < 0.5 else batch


def loss_of(model: AutoencoderTiny, pictures: Tensor, bf16: bool) -> Tensor:
    """Pixel and low-pass errors, and a pull of the latents towards zero mean and unit spread."""
    x = pictures.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        z = model.encoder(x)
        y = model.decoder(z + LATENT_NOISE * torch.randn_like(z))
    y, z = y.float(), z.float()
    error = F.l1_loss(y, x) + F.mse_loss(y, x) + F.l1_loss(F.avg_pool2d(y, 8), F.avg_pool2d(x, 8))
    spread = (z.mean((0, 2, 3)) ** 2 + (z.std((0, 2, 3)) - 1) ** 2).mean() + F.relu(z.abs() - 3).mean()
    return error + 0.05 * spread


def train(pictures: Tensor, state: Path, steps: int, bf16: bool) -> AutoencoderTiny:
    """Trains on uint8 pictures (count, height, width, 3); resumes from the state folder."""
    model = new().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.0, fused=True)
    saved, first = state / "autoencoder.pt", 0
    if saved.exists():
        kept = torch.load(saved)
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        first = kept["step"]
    began, average = time.monotonic(), 0.0
    for step in range(first, steps):
        rate = PEAK_RATE * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = max(rate, 2e-5)
        loss = loss_of(model, crops(pictures), bf16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average = loss.item() if step == first else 0.95 * average + 0.05 * loss.item()
        if step % 50 == 49 or step == steps - 1:
            print(
                f"autoencoder {step + 1} loss {average:.4f} {time.monotonic() - began:.0f}s",
                flush=True,
            )
        if step % 500 == 499 or step == steps - 1:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
                saved,
            )
    return model.eval().requires_grad_(False)


def is_done(saved: Path, steps: int) -> bool:
    """Whether a stage's file holds all of its steps."""
    return saved.exists() and torch.load(saved)["step"] >= steps


def load(saved: Path, decoder: Path | None = None) -> AutoencoderTiny:
    """The trained autoencoder, with the polished decoder if its file is given."""
    model = new()
    model.load_state_dict(torch.load(saved)["model"])
    if decoder is not None:
        model.decoder.load_state_dict(torch.load(decoder)["decoder"])
    return model.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def sharpness_loss(y: Tensor, x: Tensor) -> Tensor:
    """Errors of pixels and of the steps between neighbours: blurred edges cost twice."""
    error = F.l1_loss(y, x) + F.mse_loss(y, x)
    across = F.l1_loss(y.diff(dim=3), x.diff(dim=3))
    return error + across + F.l1_loss(y.diff(dim=2), x.diff(dim=2))


def matching_crops(latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """A batch of random crops of latents, and of the pictures where they lie."""
    cells = CROP // 8
    picks = torch.randint(0, len(latents), (BATCH,)).tolist()
    corners = torch.randint(0, latents.shape[2] - cells + 1, (BATCH, 2)).tolist()
    z, x = [], []
    for i, (v, u) in zip(picks, corners, strict=True):
        z.append(latents[i, :, v : v + cells, u : u + cells])
        x.append(pictures[i, 8 * v : 8 * v + CROP, 8 * u : 8 * u + CROP])
    return torch.stack(z).float(), rearrange(x, "n h w c -> n c h w").float() / 127.5 - 1


def polish(model: AutoencoderTiny, pictures: Tensor, state: Path, steps: int, bf16: bool) -> None:
    """Trains the decoder alone for sharper edges; the latents stay as they are."""
    saved, decoder, first = state / "decoder.pt", model.decoder, 0
    latents = torch.cat([encode(model, part, bf16) for part in pictures.split(100)])
    decoder.requires_grad_(True)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=POLISH_RATE, weight_decay=0.0, fused=True)
    if saved.exists():
        kept = torch.load(saved)
        decoder.load_state_dict(kept["decoder"])
        optimiser.load_state_dict(kept["optimiser"])
        first = kept["step"]
    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = POLISH_RATE * min(1.0, (step + 1) / 50) * (1 - step / steps)
        z, x = matching_crops(latents, pictures)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = decoder((z + LATENT_NOISE * torch.randn_like(z)).to(memory_format=torch.channels_last))
        edge = 4  # a crop's rim lacks what lies beyond it
        loss = sharpness_loss(y.float()[..., edge:-edge, edge:-edge], x[..., edge:-edge, edge:-edge])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 50 == 49 or step == steps - 1:
            print(f"decoder {step + 1} loss {loss.item():.4f}", flush=True)
            kept = {
                "decoder": decoder.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
            }
            torch.save(kept, saved)
    decoder.requires_grad_(False)


@torch.inference_mode()
def encode(model: AutoencoderTiny, pictures: Tensor, bf16: bool) -> Tensor:
    """The latents of uint8 pictures, in half precision."""
    x = (rearrange(pictures, "n h w c -> n c h w").float() / 127.5 - 1).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return model.encoder(x).half().contiguous()
