"""The noise-free measure of progress.

The loss of a training step says little: its noise level and its noise change it more than learning does. The loss on
one batch whose pictures, noise, noise levels and prompts never change falls as the word is learnt (DVAR: Voronov et
al. 2023, "Is This Loss Informative?").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import TrainConfig
from .dataset import Dataset, seed_from
from .hosts.base import Host, Prompt, Size, Words
from .objective import add_noise, denoising_loss, draw_timesteps, target
from .prompts import Templates

SIZE = 4  # samples, one from each quarter of the noise levels; benchmarks/README.md has the cost


@dataclass(frozen=True)
class FixedBatch:
    x0: Tensor  # [SIZE, C, h, w]
    noise: Tensor
    sigma: Tensor  # [SIZE], one from each quarter of the model's noise levels
    weights: Tensor  # [SIZE, 1, h, w]
    prompts: Sequence[Prompt]
    sizes: Sequence[Size]
    at_once: int  # samples a forward pass

    @classmethod
    def draw(cls, host: Host, dataset: Dataset, templates: Templates, config: TrainConfig) -> FixedBatch:
        generator = torch.Generator().manual_seed(seed_from("fixed batch", config.seed))
        indices = dataset.order(0, SIZE, config.seed)
        x0 = dataset.mean[indices]
        noise = torch.randn(x0.shape, generator=generator)
        sigma = host.sigmas.float().cpu()[draw_timesteps(SIZE, len(host.sigmas), generator)]
        prompts = [templates.draw(dataset.captions[i], generator) for i in indices]
        sizes = [dataset.sizes[i] for i in indices]
        x0, noise, sigma, weights = (t.to(host.device) for t in (x0, noise, sigma, dataset.weights[indices]))
        return cls(x0, noise, sigma, weights, prompts, sizes, config.batch_size)

    @torch.no_grad()
    def loss(self, host: Host, words: Words) -> float:
        losses = []
        for part in (slice(i, i + self.at_once) for i in range(0, SIZE, self.at_once)):
            x0, noise, sigma, weights = (t[part] for t in (self.x0, self.noise, self.sigma, self.weights))
            cond = host.encode(self.prompts[part], words, self.sizes[part])
            predicted = host.predict(add_noise(x0, noise, sigma, host.prediction), sigma, cond)
            losses.append(denoising_loss(predicted, target(x0, noise, sigma, host.prediction), weights))
        return float(torch.cat(losses).mean())
