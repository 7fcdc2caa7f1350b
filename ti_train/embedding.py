"""A learnt word: its vectors for each text encoder, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import UserError
from .hosts.base import Vectors, Vocabulary

SINGLE = "emb_params"  # the encoder's name in files that do not name it: theirs is the only encoder


@dataclass(frozen=True)
class Embedding:
    """vectors: encoder -> [num_vectors, width] fp32 on the CPU. provenance: what the file's header says."""

    name: str
    vectors: dict[str, Tensor]
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def num_vectors(self) -> int:
        return next(iter(self.vectors.values())).shape[0]

    def fitted_to(self, widths: Mapping[str, int]) -> dict[str, Tensor]:
        """The vectors under a model's own encoder names. Raises UserError naming both widths where they differ."""
        vectors = self.vectors
        if set(vectors) == {SINGLE} and len(widths) == 1:
            vectors = {next(iter(widths)): vectors[SINGLE]}
        have = {encoder: v.shape[-1] for encoder, v in vectors.items()}
        if have != dict(widths):
            raise UserError(
                f"The embedding '{self.name}' has vectors of width {_widths(have)}, but the model's text encoder wants "
                f"{_widths(widths)}. Use an embedding that was learnt on the same family of models."
            )
        return vectors


def _widths(widths: Mapping[str, int]) -> str:
    return " + ".join(f"{width} ({encoder})" if len(widths) > 1 else str(width) for encoder, width in widths.items())


def from_text(vocabulary: Vocabulary, text: str, num_vectors: int) -> tuple[Tensor, str | None]:
    """Start vectors [num_vectors, width] from the vocabulary's rows, and what to say when the phrase did not fit.

    A longer phrase keeps its last words (an English phrase ends with its noun); a shorter one is repeated.
    """
    ids = vocabulary.tokenize(text)
    if not ids:
        raise UserError(
            f"The text encoder finds no word in the initial text '{text}'. Give a plain word, such as \"cat\"."
        )
    spelt = " + ".join(vocabulary.spell(i) for i in ids)
    rows = vocabulary.rows(text)
    if len(ids) > num_vectors:
        kept = " + ".join(vocabulary.spell(i) for i in ids[-num_vectors:])
        return rows[-num_vectors:], (
            f"The initial text '{text}' has {len(ids)} tokens ({spelt}) for {num_vectors} vector(s): "
            f"starting from '{kept}'."
        )
    repeated = rows[torch.arange(num_vectors) % len(ids)]
    if len(ids) == num_vectors:
        return repeated, None
    return (
        repeated,
        f"The initial text '{text}' has {len(ids)} token(s) ({spelt}) for {num_vectors} vectors: it is repeated.",
    )


def first_of(vectors: Vectors, count: int) -> dict[str, Tensor]:
    """The first `count` vectors of a word."""
    return {encoder: v[:count] for encoder, v in vectors.items()}


def squared_distance(vectors: Vectors, others: Vectors) -> Tensor:
    """Squared L2 distance between two words' vectors, the mean over vectors and encoders: a scalar tensor."""
    return torch.stack([(v - others[encoder]).pow(2).sum(dim=-1).mean() for encoder, v in vectors.items()]).mean()


def mean_norm(vectors: Vectors) -> Tensor:
    """Mean L2 norm over a word's vectors and encoders: a scalar tensor."""
    return torch.stack([v.norm(dim=-1).mean() for v in vectors.values()]).mean()


def mean_cosine(vectors: Vectors, others: Vectors) -> Tensor:
    """Mean cosine similarity between two words' vectors: a scalar tensor."""
    pairs = [torch.cosine_similarity(v, others[encoder], dim=-1).mean() for encoder, v in vectors.items()]
    return torch.stack(pairs).mean()
