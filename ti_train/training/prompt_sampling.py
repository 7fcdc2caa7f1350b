"""What is said of a picture while it is shown: its prompt, the words in it, and whether it teaches the word at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..data.dataset import Dataset, Encoded
from ..errors import UserError
from ..host import Embeddings, Host, Prompt, Vectors
from ..prompts import NAME, PLACEHOLDER, Templates, beside, latest_slot, mentions, vary_tags, with_name_last
from .config import TrainConfig


def per_image_token(picture: Encoded) -> str:
    """The word that stands for what only this picture has (Gal et al. 2022, section 5: per-image tokens)."""
    return f"picture-{picture.number}"


def draw_prompt(picture: Encoded, templates: Templates, config: TrainConfig, generator: torch.Generator) -> Prompt:
    """One of the templates with the picture's caption in it, now and then beside the picture's own word."""
    caption = vary_tags(picture.caption, generator, config.shuffle_tags, config.drop_tags, config.keep_tags)
    prompt = templates.draw(caption, generator)
    if config.per_image_words and float(torch.rand((), generator=generator)) < config.per_image_words:
        return beside(prompt, per_image_token(picture))
    return prompt


def longest_prompt(dataset: Dataset, templates: Templates, config: TrainConfig) -> Prompt:
    """Of all that draw_prompt may draw, the prompt whose words come latest: the first that would not fit."""
    captions = {picture.caption for picture in dataset.pictures}
    if config.shuffle_tags:
        captions |= {with_name_last(caption, config.keep_tags) for caption in captions}
    longest = latest_slot([prompt for caption in captions for prompt in templates.prompts(caption)])
    return beside(longest, per_image_token(dataset.pictures[0])) if config.per_image_words else longest


@torch.no_grad()
def check_longest_prompt(
    host: Host, dataset: Dataset, templates: Templates, config: TrainConfig, vectors: Vectors, per_image: Vectors
) -> None:
    """Raises UserError for a prompt that does not fit, before anything is spent."""
    host.encode([longest_prompt(dataset, templates, config)], embeddings_for(dataset.pictures[:1], vectors, per_image))


def embeddings_for(pictures: Sequence[Encoded], vectors: Vectors, per_image: Vectors) -> Embeddings:
    """The word that is learnt and, where there are such, the pictures' own."""
    alone = {
        per_image_token(p): {encoder: v[p.number, None] for encoder, v in per_image.items()}
        for p in pictures
        if per_image
    }
    return {PLACEHOLDER: vectors, **alone}


def with_placeholder(dataset: Dataset, templates: Templates, name: str) -> tuple[Dataset, list[str]]:
    """The pictures whose prompts have the word, and what the user should know about captions. Raises UserError."""
    kept = tuple(picture for picture in dataset.pictures if templates.prompts(picture.caption))
    left_out = {picture.name for picture in dataset.pictures if not templates.prompts(picture.caption)}
    calling = {picture.name for picture in kept if mentions(picture.caption, name)}
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
