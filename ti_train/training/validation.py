"""The validation loss: that of a few samples which stay the same throughout a run.

The training loss depends more on each step's noise level and noise than on the embedding. The loss of one batch with
constant images, noise, noise levels and prompts decreases as the embedding is trained (DVAR: Voronov et al. 2023, "Is
This Loss Informative?"). Which batch decides what the loss can tell: benchmarks/README.md has how often the step with
the lowest loss was a bad one, for several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from ..data.dataset import Dataset
from ..host import Embeddings, Host
from ..prompts import Templates
from ..seeds import seed_from
from .config import TrainConfig
from .micro_batches import MicroBatch, draw_noise, split_batch
from .timesteps import NoiseLevels, stratified

SIZE = 12  # samples; for the cost see benchmarks/README.md
LEAST_NOISE = 0.7  # of the table of noise levels, below which the loss says little of what the prompt asks for


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
        places = LEAST_NOISE + (1 - LEAST_NOISE) * stratified(SIZE, generator)
        sigma = NoiseLevels.of("uniform", host.sigmas, host.prediction).at(places)
        prompts = [templates.draw(picture.caption, generator) for picture in pictures]
        return cls(split_batch(pictures, x0, noise, sigma, prompts, config.batch_size, host.device))

    @torch.no_grad()
    def log_losses(self, host: Host, embeddings: Embeddings) -> tuple[float, ...]:
        """The logarithm of each sample's loss, so that each counts by how much of its own loss is left."""
        losses = torch.cat([part.losses(host, embeddings) for part in self.micro_batches])
        return tuple(losses.log().tolist())

    def loss(self, host: Host, embeddings: Embeddings) -> float:
        """The geometric mean over the samples."""
        return math.exp(fmean(self.log_losses(host, embeddings)))
