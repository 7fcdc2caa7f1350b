"""Micro-batches: noised images of one shape with their prompts, for one forward pass.

A batch is drawn from the shuffled order regardless of shape, and then split into micro-batches. So all images occur
equally often; trainers that draw each batch from one bucket have to repeat or drop images of rare shapes. The cost:
a batch with several shapes takes several forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.dataset import Encoded
from ..device import upload
from ..host import Embeddings, Host, Prompt, Size
from .objective import add_noise, denoising_loss, target


@dataclass(frozen=True)
class MicroBatch:
    """Images of one shape for one forward pass. Tensors are on the host's device."""

    x0: Tensor  # [B, C, h, w]
    noise: Tensor
    sigma: Tensor  # [B]
    weights: Tensor  # [B, 1, h, w]
    prompts: Sequence[Prompt]
    sizes: Sequence[Size]

    def losses(self, host: Host, embeddings: Embeddings) -> Tensor:
        """The loss of each image, [B] fp32; within `host.training()` differentiable in the embeddings."""
        cond = host.encode(self.prompts, embeddings, self.sizes)
        predicted = host.predict(add_noise(self.x0, self.noise, self.sigma, host.prediction), self.sigma, cond)
        return denoising_loss(predicted, target(self.x0, self.noise, self.sigma, host.prediction), self.weights)


def draw_latents(pictures: Sequence[Encoded], generator: torch.Generator) -> list[Tensor]:
    """The latents of each image, [C, h, w]: a sample of the VAE's posterior, or its mean without variances."""
    means = [picture.mean for picture in pictures]
    variances = [picture.log_variance for picture in pictures if picture.log_variance is not None]
    if not variances:
        return means
    noise = draw_noise(means, generator)
    return [mean + (0.5 * v).exp() * n for mean, v, n in zip(means, variances, noise, strict=True)]


def draw_noise(latents: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Gaussian noise in the shape of each latent."""
    counts = [latent.numel() for latent in latents]
    drawn = torch.randn(sum(counts), generator=generator).split(counts)
    return [noise.view_as(latent) for noise, latent in zip(drawn, latents, strict=True)]


def antithetic(noise: Sequence[Tensor], sigma: Tensor) -> list[Tensor]:
    """Noise of which two images of neighbouring noise levels have opposite ones, if their latents have one shape.

    Each image's noise is Gaussian, as it was drawn; in the sum of the gradients, the part that is odd in the noise
    cancels out (Hammersley & Morton 1956).
    """
    opposite, order = list(noise), sigma.argsort().tolist()
    for one, other in zip(order[::2], order[1::2], strict=False):
        if noise[one].shape == noise[other].shape:
            opposite[other] = -noise[one]
    return opposite


def split_batch(
    pictures: Sequence[Encoded],
    x0: Sequence[Tensor],
    noise: Sequence[Tensor],
    sigma: Tensor,
    prompts: Sequence[Prompt],
    most: int,
    device: torch.device,
) -> list[MicroBatch]:
    """Splits a batch into micro-batches of one shape and at most `most` images, in the order of the batch."""
    shapes: dict[torch.Size, list[int]] = {}
    for i, latent in enumerate(x0):
        shapes.setdefault(latent.shape, []).append(i)
    parts = [same[i : i + most] for same in shapes.values() for i in range(0, len(same), most)]

    def gathered(tensors: Sequence[Tensor], part: list[int]) -> Tensor:
        """[B, ...] on the device."""
        return upload(torch.cat([tensors[i][None] for i in part]), device)

    return [
        MicroBatch(
            gathered(x0, part),
            gathered(noise, part),
            upload(sigma[part], device),
            gathered([picture.weights for picture in pictures], part),
            [prompts[i] for i in part],
            [pictures[i].size for i in part],
        )
        for part in parts
    ]
