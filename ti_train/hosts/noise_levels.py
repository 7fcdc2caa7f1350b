"""Noise levels and timesteps, for hosts that expose alphas_cumprod and the network itself."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def sigmas_of(alphas_cumprod: Tensor) -> Tensor:
    """sqrt((1 - alpha) / alpha), [T] ascending, float32; computed on the CPU because MPS has no float64."""
    alphas = alphas_cumprod.cpu().double()
    return ((1 - alphas) / alphas).sqrt().float()


def timesteps_of(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """Indices [B] int64 of noise levels [B] in the table [T]; between two levels the higher one.

    Not `searchsorted`, which PyTorch 2.1 lacks on MPS.
    """
    return (sigmas < sigma[:, None]).sum(dim=1).clamp_max(len(sigmas) - 1)


def network_input(noisy: Tensor, sigma: Tensor) -> Tensor:
    """Scales x0 + sigma * noise, [B, C, h, w], to the variance-preserving input of the network."""
    return noisy / (1 + rearrange(sigma, "b -> b 1 1 1") ** 2).sqrt()
