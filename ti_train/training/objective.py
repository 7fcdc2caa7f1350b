"""The denoising objective: noise levels, noised latents, targets and the loss of each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from ..host import Prediction

# mean and standard deviation of log(SNR), where styles are decided: Choi et al. 2025, "Style-Friendly SNR Sampler"
HIGH_NOISE = (-6.0, 2.0)


def draw_timesteps(
    count: int, sigmas: Tensor, generator: torch.Generator, kind: str = "uniform", prediction: Prediction = "eps"
) -> Tensor:
    """Stratified indices [count] into a table of noise levels, int64: one from each of `count` strata of equal mass.

    Stratification keeps the distribution of each sample (Ho et al. 2020) and lowers the variance between batches: four
    samples are never all nearly free of noise. kind: see `timesteps` in config.py. logit-normal: (mean 0, standard
    deviation 1) of the place in the table, which has the model's own shift; Esser et al. 2024, section 3.1, found it
    best for flow models, and SD 3 and Flux are fine-tuned with it.
    """
    position = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    if kind == "high-noise":
        return high_noise(position, sigmas, prediction)
    if kind == "logit-normal" or (kind == "auto" and prediction == "flow"):
        position = torch.special.ndtri(position).sigmoid()
    return (position * len(sigmas)).long().clamp_max(len(sigmas) - 1)


def high_noise(position: Tensor, sigmas: Tensor, prediction: Prediction) -> Tensor:
    """The indices at which log(SNR), from HIGH_NOISE truncated to the table, reaches the given shares of its mass."""
    mean, deviation = HIGH_NOISE
    signal = 1 - sigmas if prediction == "flow" else torch.ones_like(sigmas)
    log_snr = 2 * (signal.clamp_min(1e-6) / sigmas.clamp_min(1e-6)).log()
    mass = torch.special.ndtr((mean - log_snr.double().cpu()) / deviation)  # ascending, as the noise levels
    wanted = mass[0] + position.double() * (mass[-1] - mass[0])
    reached: Tensor = (mass[None] < wanted[:, None]).sum(dim=1).clamp_max(len(sigmas) - 1)
    return reached


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """Noised latents: x0 + sigma * noise, or for flow (1 - sigma) * x0 + sigma * noise.

    x0, noise: [B, C, h, w]; sigma: [B].
    """
    sigma = sigma.view(-1, 1, 1, 1)
    return (1 - sigma) * x0 + sigma * noise if prediction == "flow" else x0 + sigma * noise


def target(x0: Tensor, noise: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The target of the model's prediction in its own parametrisation, [B, C, h, w].

    eps: the noise (Ho et al. 2020). v: alpha * noise - s * x0 with alpha, s = (1, sigma) / sqrt(1 + sigma^2)
    (Salimans & Ho 2022). flow: noise - x0 (Lipman et al. 2023).
    """
    if prediction == "eps":
        return noise
    if prediction == "flow":
        return noise - x0
    sigma = sigma.view(-1, 1, 1, 1)
    return (noise - sigma * x0) / (1 + sigma**2).sqrt()


def denoising_loss(predicted: Tensor, wanted: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Mean squared error of each sample, [B] fp32, unreduced. (Gal et al. 2022, eq. 2)

    weights: [B, 1, h, w] of mean 1 in every sample, so that the sum of weighted errors is a weighted mean.
    """
    return ((predicted.float() - wanted.float()).pow(2) * weights).flatten(1).mean(1)
