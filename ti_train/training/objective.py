"""The denoising objective: noised latents, targets, and the loss of each sample."""

from __future__ import annotations

from torch import Tensor

from ..host import Prediction


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
