"""The noise levels of a model of a thousand timesteps, for hosts that give its alphas and its network's own time."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def sigmas_of(alphas_cumprod: Tensor) -> Tensor:
    """sqrt((1 - alpha) / alpha) of each level, [T] ascending, float32 on the CPU: Apple's GPUs know no float64."""
    alphas = alphas_cumprod.cpu().double()
    return ((1 - alphas) / alphas).sqrt().float()


def timesteps_of(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """The places [B] int64 of noise levels [B] in the table [T]; the next higher level's for one that is between.

    Counted, since PyTorch 2.1 has no `searchsorted` for Apple's GPUs.
    """
    return (sigmas < sigma[:, None]).sum(dim=1).clamp_max(len(sigmas) - 1)


def network_input(noisy: Tensor, sigma: Tensor) -> Tensor:
    """x0 + sigma * noise, [B, C, h, w], scaled to the variance that the network knows (variance preserving)."""
    return noisy / (1 + rearrange(sigma, "b -> b 1 1 1") ** 2).sqrt()
