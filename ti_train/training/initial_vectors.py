"""What a run starts from: the vectors of the word, and of the pictures' own words where they have some."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import Dataset
from ..embedding import from_text
from ..errors import UserError
from ..formats import load_embedding, names_file
from ..host import Host
from ..seeds import seed_from
from .checkpoint import State
from .config import TrainConfig


def initial_state(host: Host, dataset: Dataset, config: TrainConfig) -> tuple[State, list[str]]:
    """A run before its first step, and what the user should know about its start vectors. Raises UserError."""
    initial, remarks = initial_vectors(host, config)
    vectors = {encoder: v.clone() for encoder, v in initial.items()}  # safetensors takes no tensor under two names
    return State(0, 0.0, vectors, initial, {}, initial_per_image(host, dataset, config)), remarks


def initial_vectors(host: Host, config: TrainConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Each encoder's start vectors, and what the user should know about them. Raises UserError."""
    initial, remarks = {}, []
    if names_file(config.init):
        embedding = load_embedding(Path(config.init))
        initial = embedding.fitted_to(host.widths)
        if embedding.num_vectors != config.num_vectors:
            raise UserError(
                f"'{config.init}' has {embedding.num_vectors} vector(s), but num_vectors is {config.num_vectors}. "
                f"Give {embedding.num_vectors}."
            )
    for encoder in host.widths:
        vocabulary = host.vocabulary(encoder)
        if len(vocabulary.tokenize(config.name)) == 1:
            remarks.append(
                f"'{config.name}' is already a word of the model's vocabulary ({encoder}): where a tool calls "
                f"embeddings by their bare name, yours will hide it. A name such as my-{config.name} would not."
            )
        if encoder not in initial:
            initial[encoder], remark = from_text(vocabulary, config.init, config.num_vectors)
            remarks += [remark] if remark else []
    return initial, list(dict.fromkeys(remarks))


def initial_per_image(host: Host, dataset: Dataset, config: TrainConfig) -> dict[str, Tensor]:
    """The pictures' own words, [pictures, width] for each encoder, or none: directions at random, of a word's length.

    (The paper's repository draws coordinates from 0 to 1, which makes them forty times as long as CLIP's words.)
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
