"""The noise-free measure of progress.

The loss of a training step says little: its noise level and its noise change it more than learning does. The loss on
one batch whose pictures, noise, noise levels and prompts never change falls as the word is learnt (DVAR: Voronov et
al. 2023, "Is This Loss Informative?").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..data.dataset import Dataset
from ..host import Embeddings, Host
from ..prompts import Templates
from ..seeds import seed_from
from .config import TrainConfig
from .micro_batches import MicroBatch, draw_noise, split_batch
from .objective import draw_timesteps

SIZE = 4  # samples, one from each quarter of the noise levels; benchmarks/README.md has the cost


@dataclass(frozen=True)
class ValidationBatch:
    """Pictures, noise, noise levels and prompts that stay the same throughout a run."""

    micro_batches: Sequence[MicroBatch]

    @classmethod
    def draw(cls, host: Host, dataset: Dataset, templates: Templates, config: TrainConfig) -> ValidationBatch:
        """Of the run's first pictures, by its seed; apart from what the steps draw."""
        generator = torch.Generator().manual_seed(seed_from("fixed batch", config.seed))
        pictures = dataset.take(0, SIZE, config.seed)
        x0 = [picture.mean for picture in pictures]
        noise = draw_noise(x0, generator)
        sigma = host.sigmas.float().cpu()[draw_timesteps(SIZE, len(host.sigmas), generator)]
        prompts = [templates.draw(picture.caption, generator) for picture in pictures]
        return cls(split_batch(pictures, x0, noise, sigma, prompts, config.batch_size, host.device))

    @torch.no_grad()
    def loss(self, host: Host, embeddings: Embeddings) -> float:
        """The mean over its samples, without gradients."""
        return float(torch.cat([part.losses(host, embeddings) for part in self.micro_batches]).mean())
