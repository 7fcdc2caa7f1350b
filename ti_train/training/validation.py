"""The validation loss.

The training loss depends more on each step's noise level and noise than on the embedding. The loss of one batch with
constant images, noise, noise levels and prompts decreases as the embedding is trained (DVAR: Voronov et al. 2023, "Is
This Loss Informative?").
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
from .timesteps import NoiseLevels, stratified

SIZE = 4  # samples, one from each quarter of the noise levels; for the cost see benchmarks/README.md


@dataclass(frozen=True)
class ValidationBatch:
    """Images, noise, noise levels and prompts that are constant throughout a run."""

    micro_batches: Sequence[MicroBatch]

    @classmethod
    def draw(cls, host: Host, dataset: Dataset, templates: Templates, config: TrainConfig) -> ValidationBatch:
        """Draws it from the run's first images with a generator of its own, seeded by the run's seed."""
        generator = torch.Generator().manual_seed(seed_from("fixed batch", config.seed))
        pictures = dataset.take(0, SIZE, config.seed)
        x0 = [picture.mean for picture in pictures]
        noise = draw_noise(x0, generator)
        sigma = NoiseLevels.of("uniform", host.sigmas, host.prediction).at(stratified(SIZE, generator))
        prompts = [templates.draw(picture.caption, generator) for picture in pictures]
        return cls(split_batch(pictures, x0, noise, sigma, prompts, config.batch_size, host.device))

    @torch.no_grad()
    def loss(self, host: Host, embeddings: Embeddings) -> float:
        """The mean over the samples, without gradients."""
        return float(torch.cat([part.losses(host, embeddings) for part in self.micro_batches]).mean())
