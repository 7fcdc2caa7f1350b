"""What a step shows the model: noised pictures with their prompts, in passes of one shape each.

A batch is drawn from the shuffled order whatever the pictures' shapes, and only then sorted into forward passes. So
every picture comes equally often, and a shape with one picture is neither repeated nor left out to fill a batch, as
trainers do that draw their batches from one bucket; the price is that a batch of several shapes takes several passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .config import TrainConfig
from .dataset import Dataset, Encoded
from .errors import UserError
from .hosts.base import Host, Prompt, Size, Vectors, Words
from .objective import add_noise, denoising_loss, target
from .prompts import NAME, WORD, Templates, beside, latest_word, says, vary_tags, with_name_last


@dataclass(frozen=True)
class Pass:
    """Pictures of one shape that go through the model at once. Tensors are on the host's device."""

    x0: Tensor  # [B, C, h, w]
    noise: Tensor
    sigma: Tensor  # [B]
    weights: Tensor  # [B, 1, h, w]
    prompts: Sequence[Prompt]
    sizes: Sequence[Size]

    def losses(self, host: Host, words: Words) -> Tensor:
        """Each picture's loss, [B] fp32; differentiable in the words where the host is ready for it."""
        cond = host.encode(self.prompts, words, self.sizes)
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


def own_word(picture: Encoded) -> str:
    """The word that stands for what only this picture has (Gal et al. 2022, section 5: per-image tokens)."""
    return f"picture-{picture.number}"


def draw_prompt(picture: Encoded, templates: Templates, config: TrainConfig, generator: torch.Generator) -> Prompt:
    """One of the templates with the picture's caption in it, now and then beside the picture's own word."""
    caption = vary_tags(picture.caption, generator, config.shuffle_tags, config.drop_tags, config.keep_tags)
    prompt = templates.draw(caption, generator)
    if config.per_image_words and float(torch.rand((), generator=generator)) < config.per_image_words:
        return beside(prompt, own_word(picture))
    return prompt


def longest_prompt(dataset: Dataset, templates: Templates, config: TrainConfig) -> Prompt:
    """Of all that draw_prompt may draw, the prompt whose words come latest: the first that would not fit."""
    captions = {picture.caption for picture in dataset.pictures}
    if config.shuffle_tags:
        captions |= {with_name_last(caption, config.keep_tags) for caption in captions}
    longest = latest_word([prompt for caption in captions for prompt in templates.prompts(caption)])
    return beside(longest, own_word(dataset.pictures[0])) if config.per_image_words else longest


def words_of(pictures: Sequence[Encoded], vectors: Vectors, own: Vectors) -> Words:
    """The word that is learnt and, where there are such, the pictures' own."""
    alone = {own_word(p): {encoder: v[p.number, None] for encoder, v in own.items()} for p in pictures if own}
    return {WORD: vectors, **alone}


def with_the_word(dataset: Dataset, templates: Templates, name: str) -> tuple[Dataset, list[str]]:
    """The pictures whose prompts have the word, and what the user should know about captions. Raises UserError."""
    kept = tuple(picture for picture in dataset.pictures if templates.prompts(picture.caption))
    left_out = {picture.name for picture in dataset.pictures if not templates.prompts(picture.caption)}
    calling = {picture.name for picture in kept if says(picture.caption, name)}
    why = f"{NAME} stands neither in the caption nor in a template, and without it the word learns nothing"
    if not kept:
        raise UserError(f"No picture can be used: {why}. Write {NAME} into the captions where the word belongs.")
    remarks = [f"Left out: {listed(left_out)}. {why[0].upper()}{why[1:]}."] if left_out else []
    if calling:
        remarks.append(
            f"The caption of {listed(calling)} says '{name}', which the model reads as any text. "
            f"Where the new word is meant, write {NAME}."
        )
    return replace(dataset, pictures=kept), remarks


def listed(names: set[str], most: int = 5) -> str:
    first = sorted(names)[:most]
    return ", ".join(first) + (f" and {len(names) - most} more" if len(names) > most else "")


def in_passes(
    pictures: Sequence[Encoded],
    x0: Sequence[Tensor],
    noise: Sequence[Tensor],
    sigma: Tensor,
    prompts: Sequence[Prompt],
    at_once: int,
    device: torch.device,
) -> list[Pass]:
    """Sorts a batch into passes of one shape and at most `at_once` pictures, in the order of the batch."""
    shapes: dict[torch.Size, list[int]] = {}
    for i, latent in enumerate(x0):
        shapes.setdefault(latent.shape, []).append(i)
    parts = [same[i : i + at_once] for same in shapes.values() for i in range(0, len(same), at_once)]

    def gathered(tensors: Sequence[Tensor], part: list[int]) -> Tensor:
        """Concatenating keeps the layout in which the VAE answered: channels last on a CPU, where it is quicker."""
        return torch.cat([tensors[i][None] for i in part]).to(device)

    return [
        Pass(
            gathered(x0, part),
            gathered(noise, part),
            sigma[part].to(device),
            gathered([picture.weights for picture in pictures], part),
            [prompts[i] for i in part],
            [pictures[i].size for i in part],
        )
        for part in parts
    ]
