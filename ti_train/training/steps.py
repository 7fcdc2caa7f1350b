"""The steps of a run, one after another: what each draws, its gradients, and the vectors that it changes.

A step is queued: on a GPU the work is done while the host prepares the next one. So nothing here asks the device for a
number; the numbers of a step are sent on their way, and whoever wants them waits for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..device import ReadBack
from ..embedding import first_of, mean_cosine, mean_norm, squared_distance
from ..errors import UserError
from ..host import Host, Vectors
from ..prompts import Templates
from ..seeds import seed_from
from .checkpoint import State
from .config import TrainConfig
from .determinism import deterministic
from .micro_batches import draw_latents, draw_noise, in_passes
from .objective import draw_timesteps
from .optimizer import AdamW
from .prompt_sampling import draw_prompt, words_of
from .step_memory import step_memory

NO_GRADIENT = (
    "No gradient reached the word's vectors, so nothing can be learnt. The likely cause: the model ignores its prompt "
    "(an untrained or damaged U-Net); or an attention without a backward pass is switched on (SageAttention: start "
    "without --use-sage-attention, or take its node out); or another extension runs the text encoder without gradients."
)


class TrainedVectors:
    """The vectors that a run trains, on the host's device, and their optimizer."""

    def __init__(self, state: State, config: TrainConfig, device: torch.device, latent_size: int) -> None:
        """latent_size: elements of a picture's latents."""
        self.start = {encoder: v.to(device, torch.float32) for encoder, v in state.start.items()}
        self.vectors, self.own = trainable(state.vectors, device), trainable(state.own, device)
        # The gradient that enters the network is of order one whatever the picture's size: the mean's own 1/elements
        # would vanish in fp16.
        scale, clip = 2.0 ** round(math.log2(latent_size)), config.gradient_clip or math.inf
        self.optimizer = AdamW([*self.vectors.values(), *self.own.values()], scale, clip, state.optimizer)

    def first(self, count: int) -> Vectors:
        """The first `count` vectors of the embedding."""
        return first_of(self.vectors, count)

    @torch.no_grad()
    def measures(self, count: int) -> Tensor:
        """Mean norm of the first vectors, and their mean cosine similarity to the start: [2]."""
        used = self.first(count)
        return torch.stack([mean_norm(used), mean_cosine(used, first_of(self.start, count))])

    def after(self, step: int) -> State:
        """A copy; its seconds are not known here."""
        return State(step, 0.0, snapshot(self.vectors), self.start, dict(self.optimizer.state), snapshot(self.own))


def trainable(vectors: Vectors, device: torch.device) -> dict[str, Tensor]:
    """Leaves in the order of their names: a state file has an order of its own, and the optimizer counts its leaves."""
    return {e: v.to(device, torch.float32, copy=True).requires_grad_() for e, v in sorted(vectors.items())}


def snapshot(vectors: Vectors) -> dict[str, Tensor]:
    return {encoder: v.detach().clone() for encoder, v in vectors.items()}


@dataclass(frozen=True)
class Update:
    """A step whose work is queued: a GPU may still be at it."""

    rate: float
    numbers: ReadBack  # loss, norm of its gradient, and the measures of the vectors
    after: State


def updates(
    host: Host, dataset: Dataset, templates: Templates, config: TrainConfig, trained: TrainedVectors, done: int
) -> Iterator[Update]:
    """Queues the steps after step `done`. Raises UserError where no gradient can come."""
    sigmas = host.sigmas.float().cpu()
    optimizer, size = trained.optimizer, config.effective_batch
    memory = step_memory(host, dataset, config)
    for step in range(done + 1, config.steps + 1):
        generator = torch.Generator().manual_seed(seed_from("step", config.seed, step))
        pictures = dataset.take((step - 1) * size, size, config.seed)
        x0 = draw_latents(pictures, generator)
        noise = draw_noise(x0, generator)
        sigma = sigmas[draw_timesteps(size, len(sigmas), generator)]
        prompts = [draw_prompt(picture, templates, config, generator) for picture in pictures]
        count, rate = config.vectors_at(step), config.learning_rate_at(step)

        losses = []
        with host.training(config.gradient_checkpointing, memory), deterministic(config.deterministic):
            words = words_of(pictures, trained.first(count), trained.own)
            for part in in_passes(pictures, x0, noise, sigma, prompts, config.batch_size, host.device):
                part_of_loss = part.losses(host, words).sum() / size
                if not part_of_loss.requires_grad:
                    raise UserError(NO_GRADIENT)
                (part_of_loss * optimizer.scale).backward()
                losses.append(part_of_loss.detach())
            if config.coarse_weight:
                distance = squared_distance(trained.vectors, trained.start)
                (config.coarse_weight * distance * optimizer.scale).backward()
        loss = torch.stack(losses).sum()
        norm = optimizer.step(loss, rate)
        numbers = ReadBack(torch.cat([torch.stack([loss, norm]), trained.measures(count)]))
        yield Update(rate, numbers, trained.after(step))


def one_step_late(queued: Iterator[Update], device: torch.device, config: TrainConfig) -> Iterator[Update]:
    """Each update; on CUDA only when the next one is queued, so that the GPU never waits for whoever drives the run.

    What happens after a step, and is no step, wants the vectors as they are: nothing is queued before that is over.
    """
    held: Update | None = None
    for update in queued:
        if held:
            yield held
        held = update
        if device.type != "cuda" or config.pauses_after(update.after.step):
            yield held
            held = None
