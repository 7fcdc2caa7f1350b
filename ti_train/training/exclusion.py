"""The exclusion loss: per-image tokens must say nothing of other images, so what all share is left to the embedding.

ConceptPrism (CVPR 2026, arXiv 2602.19575), first stage: at another image's noised latents, the prediction for a prompt
of an image's token alone is drawn to that for the empty prompt. The paper takes three other images for each of a step;
here it is one, of whose passes a batch has several.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.dataset import Dataset, Encoded
from ..errors import UserError
from ..host import Embeddings, Host, Slot
from .config import TrainConfig
from .micro_batches import MicroBatch, draw_latents, draw_noise, split_batch
from .objective import add_noise, denoising_loss
from .prompt_sampling import per_image_token
from .timesteps import NoiseLevels, stratified


def draw_others(
    host: Host,
    dataset: Dataset,
    pictures: Sequence[Encoded],
    config: TrainConfig,
    levels: NoiseLevels,
    generator: torch.Generator,
) -> list[MicroBatch]:
    """For each of a step's images another one, noised, with the first one's token as its prompt; [] without exclusion.

    Raises UserError if all images are the same one.
    """
    if not config.exclusion:
        return []
    others = [_other(dataset, picture, generator) for picture in pictures]
    x0 = draw_latents(others, generator)
    sigma = levels.at(stratified(len(others), generator)[torch.randperm(len(others), generator=generator)])
    prompts = [("", Slot(per_image_token(picture))) for picture in pictures]
    return split_batch(others, x0, draw_noise(x0, generator), sigma, prompts, config.batch_size, host.device)


def _other(dataset: Dataset, picture: Encoded, generator: torch.Generator) -> Encoded:
    """A random image that is not this one, nor its mirrored copy."""
    others = [other for other in dataset.pictures if other.number != picture.number]
    if not others:
        raise UserError("exclusion compares images with each other, but there is only one. Add images, or set it to 0.")
    return others[int(torch.randint(len(others), (), generator=generator))]


def exclusion_losses(part: MicroBatch, host: Host, embeddings: Embeddings) -> Tensor:
    """The loss of each image, [B] fp32: one pass with and one without gradient, in the per-image tokens alone."""
    noisy = add_noise(part.x0, part.noise, part.sigma, host.prediction)
    with torch.no_grad():
        empty = host.predict(noisy, part.sigma, host.encode([("",)] * len(noisy), {}, part.sizes))
    token = host.predict(noisy, part.sigma, host.encode(part.prompts, embeddings, part.sizes))
    return denoising_loss(token, empty, part.weights)
