"""Sampling of prompts: from templates, captions and per-image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..data.dataset import Dataset, Encoded
from ..errors import UserError
from ..host import Embeddings, Host, Prompt, Vectors
from ..prompts import NAME, PLACEHOLDER, Templates, beside, latest_slot, mentions, vary_tags, with_name_last
from ..text import listed
from .config import TrainConfig


def per_image_token(picture: Encoded) -> str:
    """The name of an image's own token (Gal et al. 2022, section 5: per-image tokens)."""
    return f"picture-{picture.number}"


def draw_prompt(picture: Encoded, templates: Templates, config: TrainConfig, generator: torch.Generator) -> Prompt:
    """A random template with the image's caption, with probability `per_image_words` also with its per-image token."""
    caption = vary_tags(picture.caption, generator, config.shuffle_tags, config.drop_tags, config.keep_tags)
    prompt = templates.draw(caption, generator)
    if config.per_image_words and float(torch.rand((), generator=generator)) < config.per_image_words:
        return beside(prompt, per_image_token(picture))
    return prompt


def longest_prompt(dataset: Dataset, templates: Templates, config: TrainConfig) -> Prompt:
    """Of all prompts that draw_prompt may return, the one with the latest slot: the first to exceed the context."""
    captions = {picture.caption for picture in dataset.pictures}
    if config.shuffle_tags:
        captions |= {with_name_last(caption, config.keep_tags) for caption in captions}
    longest = latest_slot([prompt for caption in captions for prompt in templates.prompts(caption)])
    return beside(longest, per_image_token(dataset.pictures[0])) if config.per_image_words else longest


@torch.no_grad()
def check_longest_prompt(
    host: Host, dataset: Dataset, templates: Templates, config: TrainConfig, vectors: Vectors, per_image: Vectors
) -> None:
    """Raises UserError before training if a prompt does not fit the encoder's context."""
    host.encode([longest_prompt(dataset, templates, config)], embeddings_for(dataset.pictures[:1], vectors, per_image))


def embeddings_for(pictures: Sequence[Encoded], vectors: Vectors, per_image: Vectors) -> Embeddings:
    """The embedding and, if used, the per-image tokens of these images: name -> encoder -> [n, width]."""
    alone = {
        per_image_token(p): {encoder: v[p.number, None] for encoder, v in per_image.items()}
        for p in pictures
        if per_image
    }
    return {PLACEHOLDER: vectors, **alone}


def with_placeholder(dataset: Dataset, templates: Templates, name: str) -> tuple[Dataset, list[str]]:
    """The images whose prompts contain the embedding, and remarks for the user. Raises UserError if there are none."""
    kept = tuple(picture for picture in dataset.pictures if templates.prompts(picture.caption))
    left_out = {picture.name for picture in dataset.pictures if not templates.prompts(picture.caption)}
    calling = {picture.name for picture in kept if mentions(picture.caption, name)}
    why = f"neither caption nor template contains {NAME}, which stands for the embedding"
    if not kept:
        raise UserError(f"None of the images can be used: {why}. Write {NAME} into the captions.")
    remarks = [f"Ignored: {listed(sorted(left_out))}. {why[0].upper()}{why[1:]}."] if left_out else []
    if calling:
        remarks.append(
            f"The caption of {listed(sorted(calling))} contains '{name}', which the model reads as ordinary text. "
            f"Write {NAME} for the embedding."
        )
    return replace(dataset, pictures=kept), remarks
