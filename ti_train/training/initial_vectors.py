"""Initial vectors of a run: the embedding's, and those of the per-image tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import Dataset
from ..embedding import from_text
from ..errors import UserError
from ..formats import load_embedding, names_file
from ..host import Host, Vectors
from ..names import candidates
from ..prompts import PLACEHOLDER, Templates
from ..seeds import seed_from
from .condensing import condense
from .config import TrainConfig
from .cross_initialization import crossed
from .state import State
from .validation import ValidationBatch

MOST_BY_DEFAULT = 4  # vectors: more are more faithful, and harder to edit (Gal et al. 2022, section 4.3)
CLOSER = "Condensed through the text encoder {}: prompts are at {:.0%} of the mean's squared distance from the text."


def initial_state(
    host: Host, dataset: Dataset, templates: Templates, config: TrainConfig, stop: Callable[[], bool] = lambda: False
) -> tuple[State, list[str]]:
    """The state of a run before its first step, and remarks for the user. stop: as in train(). Raises UserError."""
    made = {text: initial_vectors(host, replace(config, init=text), stop) for text in candidates(config.init)}
    text, why = chosen(host, dataset, templates, config, {each: vectors for each, (vectors, _) in made.items()})
    initial, remarks = made[text]
    if config.optimizer == "sphere":
        initial = {e: host.vocabulary(e).mean_norm * F.normalize(v, dim=-1) for e, v in initial.items()}
    vectors = {encoder: v.clone() for encoder, v in initial.items()}  # safetensors refuses shared tensors
    state = State(0, 0.0, vectors, initial, {}, initial_per_image(host, dataset, config), init=text)
    return state, [*remarks, *why]


def chosen(
    host: Host, dataset: Dataset, templates: Templates, config: TrainConfig, made: Mapping[str, Vectors]
) -> tuple[str, list[str]]:
    """The candidate with the lowest validation loss, and a remark if there was a choice."""
    if len(made) == 1:
        return next(iter(made)), []
    there = {text: {PLACEHOLDER: {e: v.to(host.device) for e, v in vectors.items()}} for text, vectors in made.items()}
    batch = ValidationBatch.draw(host, dataset, templates, config)
    losses = {text: batch.loss(host, embeddings) for text, embeddings in there.items()}
    best = min(losses, key=losses.__getitem__)
    listed = ", ".join(f"{text} {loss:#.4g}" for text, loss in sorted(losses.items(), key=lambda item: item[1]))
    return best, [f"The initial text is '{best}', with the lowest validation loss ({listed})."]


def initial_vectors(
    host: Host, config: TrainConfig, stop: Callable[[], bool] = lambda: False
) -> tuple[dict[str, Tensor], list[str]]:
    """The initial vectors, encoder -> [num_vectors, width], and remarks for the user. Raises UserError.

    By default they are as many as the tokens of the initial text, up to MOST_BY_DEFAULT, or as the vectors of its file.
    """
    name, vocabularies = config.bare_name, {encoder: host.vocabulary(encoder) for encoder in host.widths}
    remarks = [
        f"'{name}' is a word of the model's vocabulary ({encoder}), which your embedding replaces in every "
        f"prompt. Choose a name such as my-{name}."
        for encoder, vocabulary in vocabularies.items()
        if host.bare_names and len(vocabulary.tokenize(name)) == 1
    ]
    if names_file(config.init):
        initial, unused = initial_from_file(host, config)
        return initial, remarks + unused
    count = config.num_vectors or max(1, min(tokens_of(host, config.init), MOST_BY_DEFAULT))
    initial = {}
    for encoder, vocabulary in vocabularies.items():
        initial[encoder], remark = from_text(vocabulary, config.init, count)
        remarks += [remark] if remark else []
    if config.initial_vectors != "text":
        rows = {encoder: vocabulary.rows(config.init) for encoder, vocabulary in vocabularies.items()}
        if config.initial_vectors == "cross":
            initial = crossed(host, rows, count)
        else:
            found = condense(host, rows, initial, stop)
            initial = found.vectors
            remarks += [CLOSER.format(encoder, share) for encoder, share in found.shares.items()]
    return initial, list(dict.fromkeys(remarks))


def tokens_of(host: Host, text: str) -> int:
    """The tokens of a text, for the text encoder for which it has most."""
    return max(len(host.vocabulary(encoder).tokenize(text)) for encoder in host.widths)


def initial_from_file(host: Host, config: TrainConfig) -> tuple[dict[str, Tensor], list[str]]:
    """As initial_vectors. Raises UserError too if the file has no vectors for one of the model's encoders."""
    embedding = load_embedding(Path(config.init))
    if config.num_vectors not in (0, embedding.num_vectors):
        raise UserError(
            f"'{config.init}' has {embedding.num_vectors} vector(s), but num_vectors is {config.num_vectors}. "
            f"Set num_vectors to {embedding.num_vectors}."
        )
    vectors, remark = embedding.part_for(host.widths)
    if len(vectors) < len(host.widths):
        raise UserError(f"{remark} Train from a text, or from an embedding of this model family.")
    return vectors, [remark] if remark else []


def initial_per_image(host: Host, dataset: Dataset, config: TrainConfig) -> dict[str, Tensor]:
    """Initial per-image tokens, encoder -> [images, width], or {} without them.

    Random directions with the median norm of the vocabulary. (The paper's repository draws coordinates from 0 to 1,
    which gives forty times the norm of CLIP's tokens.)
    """
    if not config.per_image_words:
        return {}
    generator = torch.Generator().manual_seed(seed_from("own words", config.seed))
    count = 1 + max(picture.number for picture in dataset.pictures)
    return {
        encoder: F.normalize(torch.randn(count, width, generator=generator))
        * float(host.vocabulary(encoder).norms.median())
        for encoder, width in host.widths.items()
    }
