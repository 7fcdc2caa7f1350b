"""Sampling of prompts: from templates, captions and per-image tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..data.dataset import Dataset, Encoded
from ..errors import UserError
from ..host import Embeddings, Host, Prompt, Slot, Vectors
from ..prompt_check import TokenCounter, unknown_marks
from ..prompts import (
    NAME,
    PLACEHOLDER,
    Templates,
    beside,
    latest_slot,
    mentions,
    placeholders_of,
    slots,
    vary_tags,
    with_name_last,
)
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


def longest_prompt(
    dataset: Dataset, templates: Templates, config: TrainConfig, length: Callable[[Prompt], int]
) -> Prompt:
    """Of all prompts that draw_prompt may return, the one with the latest slot: the first to exceed the context."""
    captions = {picture.caption for picture in dataset.pictures}
    if config.shuffle_tags:
        captions |= {with_name_last(caption, config.keep_tags) for caption in captions}
    longest = latest_slot((prompt for caption in captions for prompt in templates.prompts(caption)), length)
    return beside(longest, per_image_token(dataset.pictures[0])) if config.per_image_words else longest


@torch.no_grad()
def check_prompts(
    host: Host, dataset: Dataset, templates: Templates, config: TrainConfig, vectors: Vectors, per_image: Vectors
) -> list[str]:
    """What of the captions and the preview prompts is not used.

    Raises UserError before training if the embedding of a prompt does not fit the encoder's context.
    """
    lengths = {per_image_token(picture): 1 for picture in dataset.pictures} | {PLACEHOLDER: config.num_vectors}
    counter = TokenCounter(host, lengths)
    longest = longest_prompt(dataset, templates, config, counter.count)
    host.encode([longest], embeddings_for(dataset.pictures[:1], vectors, per_image))
    remarks = _cut_captions(dataset, templates, counter)
    for text in config.preview_prompts if config.preview_every else ():
        prompt, which = preview_prompt(text, config), f"preview prompt '{text}'"
        if not any(isinstance(piece, Slot) for piece in prompt):
            remarks.append(f"The {which} does not show the embedding. Write {PLACEHOLDER} or <{config.name}> in it.")
        remarks += counter.remarks(prompt, f"The {which}")
        remarks += unknown_marks(prompt, [f"<{config.name}>"], f"the {which}", host.known_marks)
    negative = preview_prompt(config.preview_negative, config)
    if config.preview_every:
        remarks += counter.remarks(negative, "The negative prompt of the previews")
        remarks += unknown_marks(
            negative, [f"<{config.name}>"], "the negative prompt of the previews", host.known_marks
        )
    return remarks


def _cut_captions(dataset: Dataset, templates: Templates, counter: TokenCounter) -> list[str]:
    """One remark on all prompts that are too long with their image's caption."""
    if counter.limit is None:
        return []
    longest = {p.name: max(templates.prompts(p.caption), key=counter.count) for p in dataset.pictures}
    too_long = [name for name, prompt in longest.items() if counter.cut_off(prompt)]
    if not too_long:
        return []
    others = f" So are those of {listed(too_long[1:])}." if len(too_long) > 1 else ""
    first = counter.remarks(longest[too_long[0]], f"The longest prompt for {too_long[0]}")
    return [remark + others for remark in first]


def preview_prompt(text: str, config: TrainConfig) -> Prompt:
    """The prompt of a preview, in which * and <name> are the embedding."""
    return slots(text, dict.fromkeys(placeholders_of(config.name), PLACEHOLDER)) or ("",)


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
