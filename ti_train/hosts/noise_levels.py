"""Noise levels in the words of a network that was trained on timesteps."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def timesteps_of(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """The places of noise levels [B] in the model's ascending table [T]; between two levels, that of the noisier."""
    return torch.searchsorted(sigmas, sigma.contiguous()).clamp_max(len(sigmas) - 1)


def network_input(noisy: Tensor, sigma: Tensor) -> Tensor:
    """x0 + sigma * noise, [B, C, h, w], scaled to the variance that the network knows (variance preserving)."""
    return noisy / (1 + rearrange(sigma, "b -> b 1 1 1") ** 2).sqrt()
