"""What a step shows the model: noised pictures with their prompts, in passes of one shape each.

A batch is drawn from the shuffled order whatever the pictures' shapes, and only then sorted into forward passes. So
every picture comes equally often, and a shape with one picture is neither repeated nor left out to fill a batch, as
trainers do that draw their batches from one bucket; the price is that a batch of several shapes takes several passes.
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
    """Pictures of one shape that go through the model at once. Tensors are on the host's device."""

    x0: Tensor  # [B, C, h, w]
    noise: Tensor
    sigma: Tensor  # [B]
    weights: Tensor  # [B, 1, h, w]
    prompts: Sequence[Prompt]
    sizes: Sequence[Size]

    def losses(self, host: Host, embeddings: Embeddings) -> Tensor:
        """Each picture's loss, [B] fp32; differentiable in the words where the host is ready for it."""
        cond = host.encode(self.prompts, embeddings, self.sizes)
        predicted = host.predict(add_noise(self.x0, self.noise, self.sigma, host.prediction), self.sigma, cond)
        return denoising_loss(predicted, target(self.x0, self.noise, self.sigma, host.prediction), self.weights)


def draw_latents(pictures: Sequence[Encoded], generator: torch.Generator) -> list[Tensor]:
    """Each picture's latents [C, h, w], sampled anew from the VAE's posterior where it has one."""
    means = [picture.mean for picture in pictures]
    variances = [picture.log_variance for picture in pictures if picture.log_variance is not None]
    if not variances:
        return means
    noise = draw_noise(means, generator)
    return [mean + (0.5 * v).exp() * n for mean, v, n in zip(means, variances, noise, strict=True)]


def draw_noise(latents: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Gaussian noise for each of the latents."""
    counts = [latent.numel() for latent in latents]
    drawn = torch.randn(sum(counts), generator=generator).split(counts)
    return [noise.view_as(latent) for noise, latent in zip(drawn, latents, strict=True)]


def split_batch(
    pictures: Sequence[Encoded],
    x0: Sequence[Tensor],
    noise: Sequence[Tensor],
    sigma: Tensor,
    prompts: Sequence[Prompt],
    at_once: int,
    device: torch.device,
) -> list[MicroBatch]:
    """Sorts a batch into passes of one shape and at most `at_once` pictures, in the order of the batch."""
    shapes: dict[torch.Size, list[int]] = {}
    for i, latent in enumerate(x0):
        shapes.setdefault(latent.shape, []).append(i)
    parts = [same[i : i + at_once] for same in shapes.values() for i in range(0, len(same), at_once)]

    def gathered(tensors: Sequence[Tensor], part: list[int]) -> Tensor:
        """Concatenating keeps the layout in which the VAE answered: channels last on a CPU, where it is quicker."""
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
