"""The validation loss: how much of the initial vectors' loss is left, on samples that stay the same throughout a run.

The training loss depends more on each step's noise level and noise than on the embedding. A batch with constant images,
noise, noise levels and prompts shows the embedding alone (DVAR: Voronov et al. 2023, "Is This Loss Informative?"), but
a batch as small as one can afford shows how the embedding suits this batch. So there are GROUPS of them, measured in
turn, each compared with its own loss under the initial vectors. Within a group a loss counts in proportion to its noise
level: otherwise the levels with least noise, where the prompt decides least, would count most.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..data.dataset import Dataset
from ..host import Embeddings, Host
from ..prompts import Templates
from ..seeds import seed_from
from .config import TrainConfig
from .micro_batches import MicroBatch, draw_noise, split_batch
from .timesteps import GOLDEN, NoiseLevels
from .weighting import loss_weights

SIZE = 4  # samples of a group, one from each quarter of the noise levels; for the cost see benchmarks/README.md
GROUPS = 6
WEIGHTING = "sigma"


class Validation:
    """Groups of samples, and their losses under the initial vectors, each measured when it is first needed."""

    def __init__(self, host: Host, groups: Sequence[Sequence[MicroBatch]], initial: Embeddings) -> None:
        self.host, self.groups, self.initial = host, groups, initial
        self._untrained: dict[int, float] = {}

    @classmethod
    def draw(
        cls, host: Host, dataset: Dataset, templates: Templates, config: TrainConfig, initial: Embeddings
    ) -> Validation:
        """Draws the groups from the run's first images with a generator of their own, seeded by the run's seed."""
        generator = torch.Generator().manual_seed(seed_from("fixed batch", config.seed))
        levels, shift = (
            NoiseLevels.of("uniform", host.sigmas, host.prediction),
            float(torch.rand((), generator=generator)),
        )
        groups = []
        for number in range(GROUPS):
            pictures = dataset.take(number * SIZE, SIZE, config.seed)
            x0 = [picture.mean for picture in pictures]
            noise = draw_noise(x0, generator)
            within = (shift + GOLDEN * number) % 1
            sigma = levels.at((torch.arange(SIZE, dtype=torch.float64) + within) / SIZE)
            prompts = [templates.draw(picture.caption, generator) for picture in pictures]
            groups.append(split_batch(pictures, x0, noise, sigma, prompts, config.batch_size, host.device))
        return cls(host, groups, initial)

    @property
    def untrained(self) -> float:
        """The loss of the initial vectors."""
        return self._before(0)

    def mean(self, embeddings: Embeddings) -> float:
        """The loss over all groups: for vectors of which none are the initial ones yet."""
        return sum(self._of(group, embeddings) for group in range(GROUPS)) / GROUPS

    def loss(self, embeddings: Embeddings, number: int) -> float:
        """The loss of a run's measurement `number`, from 1: the part of the untrained loss that is left."""
        group = number % GROUPS
        return self.untrained * self._of(group, embeddings) / self._before(group)

    def _before(self, group: int) -> float:
        if group not in self._untrained:
            self._untrained[group] = self._of(group, self.initial)
        return self._untrained[group]

    @torch.no_grad()
    def _of(self, group: int, embeddings: Embeddings) -> float:
        """A group's mean loss, weighted by noise level."""
        losses = torch.cat([part.losses(self.host, embeddings) for part in self.groups[group]])
        sigma = torch.cat([part.sigma for part in self.groups[group]])
        weights = loss_weights(WEIGHTING, sigma, self.host.prediction)
        return float((losses * weights).sum() / weights.sum())
