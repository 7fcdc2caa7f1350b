"""Training steps: random draws, gradients, and updates of the vectors.

On a GPU a step is only queued, and the next one is prepared while it runs. So nothing here synchronizes with the
device: the numbers of a step are copied asynchronously (see ReadBack).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import Dataset, Encoded
from ..device import ReadBack
from ..embedding import CLIPS, first_of, mean_cosine, mean_norm, squared_distance
from ..host import Embeddings, Host, Prompt, Vectors, Vocabulary
from ..prompts import Templates
from ..seeds import seed_from
from .config import TrainConfig
from .context import context_loss, draw_contexts
from .exclusion import draw_others, exclusion_losses
from .micro_batches import MicroBatch, antithetic, draw_latents, draw_noise, split_batch
from .optimizer import AdamW, Group, Optimizer
from .passes import Passes, Work
from .prompt_sampling import draw_prompt, embeddings_for
from .sphere import SphereDescent
from .state import State
from .step_memory import step_memory
from .timesteps import NoiseLevels, positions
from .weighting import loss_weights

OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "sphere": SphereDescent}
CLIP_SPREAD = 0.014  # standard deviation of a coordinate in the table of CLIP ViT-L/14


class TrainedVectors:
    """The vectors that a run trains, on the host's device, and their optimizer."""

    def __init__(self, state: State, config: TrainConfig, host: Host, latent_size: int) -> None:
        """latent_size: elements of an image's latents."""
        device, self.config = host.device, config
        self.averaged = {encoder: v.to(device, torch.float32) for encoder, v in state.averaged.items()}
        self.initial = {encoder: v.to(device, torch.float32) for encoder, v in state.initial.items()}
        self.units = {encoder: unit_of(encoder, host.vocabulary(encoder)) for encoder in state.vectors}
        self.vectors, self.per_image = trainable(state.vectors, device), trainable(state.per_image, device)
        # Makes the gradient that enters the network of order one: the 1/elements of the mean would underflow in fp16.
        scale, clip = 2.0 ** round(math.log2(latent_size)), config.gradient_clip or math.inf
        groups = [Group(e, self.units[e], self.initial[e]) for e in self.vectors]
        groups += [Group(e, self.units[e]) for e in self.per_image]
        leaves = [*self.vectors.values(), *self.per_image.values()]
        self.optimizer = OPTIMIZERS[config.optimizer](leaves, scale, clip, state.optimizer, groups, config.pull)

    def in_units(self, vectors: Vectors) -> Vectors:
        """Vectors on the scale of CLIP's, whichever encoder they are for."""
        return {encoder: v / self.units[encoder] for encoder, v in vectors.items()}

    def first(self, count: int) -> Vectors:
        """The first `count` vectors of the embedding."""
        return first_of(self.vectors, count)

    def embeddings(self, pictures: Sequence[Encoded], count: int) -> Embeddings:
        """What the prompts of these images may name, differentiable where gradients are enabled."""
        return embeddings_for(pictures, self.first(count), self.per_image)

    def shown(self, count: int) -> Vectors:
        """The first `count` vectors as the file has them: averaged, where the run averages them."""
        return first_of(self.averaged or self.vectors, count)

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Takes the vectors after a step into their average; on the sphere it stays there."""
        number = step - self.config.averaged_after
        if number < 1:
            return
        before = self.averaged or self.vectors
        mean = {e: torch.lerp(before[e], v.detach(), 1 / number) for e, v in self.vectors.items()}
        if self.config.optimizer == "sphere":
            mean = {e: F.normalize(v, dim=-1) * self.vectors[e].norm(dim=-1, keepdim=True) for e, v in mean.items()}
        self.averaged = {e: v.detach() for e, v in mean.items()}

    @torch.no_grad()
    def measures(self, count: int) -> Tensor:
        """Mean L2 norm of the first `count` vectors, and mean cosine similarity to their initial values: [2]."""
        used = self.first(count)
        return torch.stack([mean_norm(used), mean_cosine(used, first_of(self.initial, count))])

    def after(self, step: int) -> State:
        """A copy of the state after a step, with seconds 0."""
        state, own = dict(self.optimizer.state), snapshot(self.per_image)
        return State(step, 0.0, snapshot(self.vectors), self.initial, state, own, averaged=dict(self.averaged))


def unit_of(encoder: str, vocabulary: Vocabulary) -> float:
    """What an encoder's learning rate is multiplied by: how much wider its table is spread than CLIP's.

    AdamW moves every coordinate by about the rate, whatever the gradient. CLIP's tables spread by CLIP_SPREAD, for
    which the rates are made; T5's by several units, so at CLIP's rate its vectors would stay where they are.
    """
    return 1.0 if encoder.startswith(CLIPS) else max(vocabulary.spread, 1e-6) / CLIP_SPREAD


def trainable(vectors: Vectors, device: torch.device) -> dict[str, Tensor]:
    """Leaf tensors sorted by name: the optimizer numbers its leaves, and a state file has another order."""
    return {e: v.to(device, torch.float32, copy=True).requires_grad_() for e, v in sorted(vectors.items())}


def snapshot(vectors: Vectors) -> dict[str, Tensor]:
    return {encoder: v.detach().clone() for encoder, v in vectors.items()}


@dataclass(frozen=True)
class Update:
    """A queued step, which a GPU may still be computing."""

    rate: float
    numbers: ReadBack  # loss, gradient norm, and `measures` of the vectors
    after: State


def updates(
    host: Host,
    dataset: Dataset,
    templates: Templates,
    config: TrainConfig,
    trained: TrainedVectors,
    done: int,
    passes: Passes,
) -> Iterator[Update]:
    """Queues the steps after step `done`. Raises UserError if the loss does not depend on the vectors."""
    levels = NoiseLevels.of(config.timesteps, host.sigmas, host.prediction)
    # so that gradient_clip and coarse_weight mean the same with every weighting
    mean_weight = float(levels.mean(loss_weights(config.weighting, levels.sigmas, host.prediction)))
    optimizer, size = trained.optimizer, config.effective_batch
    memory = step_memory(host, dataset, config)
    for step in range(done + 1, config.steps + 1):
        generator = torch.Generator().manual_seed(seed_from("step", config.seed, step))
        pictures = dataset.take((step - 1) * size, size, config.seed)
        x0 = draw_latents(pictures, generator)
        sigma = levels.at(positions(dataset, step, size, config.seed))
        noise = antithetic(draw_noise(x0, generator), sigma)
        prompts = [draw_prompt(picture, templates, config, generator) for picture in pictures]
        others = draw_others(host, dataset, pictures, config, levels, generator)
        contexts = draw_contexts(generator) if config.context else []
        count, rate = config.vectors_at(step), config.learning_rate_at(step)

        parts = split_batch(pictures, x0, noise, sigma, prompts, config.batch_size, host.device)
        weights = [loss_weights(config.weighting, part.sigma, host.prediction) / mean_weight / size for part in parts]
        used = partial(trained.embeddings, pictures, count)
        terms = partial(further_terms, host, config, trained, count, others, contexts)
        loss = passes.backward(host, Work(config, parts, weights, used, terms, optimizer.scale, memory))
        norm = optimizer.step(loss, rate)
        trained.average(step)
        numbers = ReadBack(torch.cat([torch.stack([loss, norm]), trained.measures(count)]))
        yield Update(rate, numbers, trained.after(step))


def further_terms(
    host: Host,
    config: TrainConfig,
    trained: TrainedVectors,
    count: int,
    others: Sequence[MicroBatch],
    contexts: list[Prompt],
    embeddings: Embeddings,
) -> Iterator[Tensor]:
    """What a step adds to the loss of its images, term by term, so that no two graphs are in memory."""
    for part in others:
        yield config.exclusion * exclusion_losses(part, host, embeddings).sum() / config.effective_batch
    if config.context:
        yield config.context * context_loss(host, contexts, trained.first(count), first_of(trained.initial, count))
    if config.coarse_weight:
        distance = squared_distance(trained.in_units(trained.vectors), trained.in_units(trained.initial))
        yield config.coarse_weight * distance


def one_step_late(queued: Iterator[Update], device: torch.device, config: TrainConfig) -> Iterator[Update]:
    """Yields each update; on CUDA after the next one is queued, so that the GPU never waits for the caller.

    Validation, previews and checkpoints need the current vectors: the step before them is yielded immediately.
    """
    held: Update | None = None
    for update in queued:
        if held:
            yield held
        held = update
        if device.type != "cuda" or config.pauses_after(update.after.step):
            yield held
            held = None
