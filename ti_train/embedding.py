"""A learnt word: its vectors for each text encoder, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import UserError
from .host import Vectors, Vocabulary

SINGLE = "emb_params"  # the encoder's name in files that do not name it: theirs is the only encoder
ONE_CLIP = {SINGLE, "clip_l", "clip_h"}  # what the only encoder of Stable Diffusion 1 and 2 is called, by host


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
        if len(vectors) == len(widths) == 1 and (SINGLE in vectors or {*vectors, *widths} <= ONE_CLIP):
            vectors = dict(zip(widths, vectors.values(), strict=True))
        if {encoder: v.shape[-1] for encoder, v in vectors.items()} != dict(widths):
            have = {encoder: v.shape[-1] for encoder, v in self.vectors.items()}
            raise UserError(
                f"The embedding '{self.name}' has vectors of width {_widths(have)}, but the model's text encoder wants "
                f"{_widths(widths)}. Use an embedding that was learnt on the same family of models."
            )
        return {encoder: vectors[encoder] for encoder in widths}

    def scaled(self, strength: float = 1.0, norm: float = 0.0) -> Embedding:
        """Every vector brought to the L2 norm `norm`, where it is not 0, and then multiplied by `strength`."""
        vectors = self.vectors
        if norm:
            vectors = {e: norm * v / v.norm(dim=-1, keepdim=True).clamp_min(1e-12) for e, v in vectors.items()}
        if strength != 1:
            vectors = {e: strength * v for e, v in vectors.items()}
        if vectors is self.vectors:
            return self
        measured = {"norms", "cosine_to_init"}  # of the vectors as they were learnt
        provenance = {key: value for key, value in self.provenance.items() if key not in measured}
        return Embedding(self.name, vectors, provenance | {"scaled": f"norm {norm:g}, strength {strength:g}"})


def _widths(widths: Mapping[str, int]) -> str:
    named = len(widths) > 1 or not set(widths) <= ONE_CLIP
    return " + ".join(f"{width} ({encoder})" if named else str(width) for encoder, width in widths.items())


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


MERGES = ("concatenate", "sum", "interpolate")


def merge(words: Sequence[Embedding], how: str, weights: Sequence[float], name: str) -> Embedding:
    """One word made of several, in the first one's encoders.

    concatenate: the vectors one after another, each multiplied by its word's weight. sum: the weighted sum of the
    vectors, place by place. interpolate: of two words, on the arc between each pair of directions (Shoemake 1985), with
    the lengths in between; only the ratio of the weights counts. Raises UserError for words that do not go together.
    """
    if len(words) < 2 or len(weights) != len(words):
        raise UserError(
            f"{len(words)} word(s) and {len(weights)} weight(s): give two words or more, and a weight each."
        )
    parts = [_fitted(word, words[0]) for word in words]
    counts = [word.num_vectors for word in words]
    if how != "concatenate" and len(set(counts)) > 1:
        raise UserError(
            f"The words have {' and '.join(map(str, counts))} vectors. Only words of as many vectors can be merged by "
            f"'{how}'; 'concatenate' takes any."
        )
    if how == "interpolate" and (len(words) != 2 or min(weights) < 0 or sum(weights) == 0):
        raise UserError("'interpolate' is between two words, with weights from 0 up that are not both 0.")
    merged = {}
    for encoder in parts[0]:
        rows = [part[encoder] for part in parts]
        weighted = [weight * v for weight, v in zip(weights, rows, strict=True)]
        if how == "interpolate":
            merged[encoder] = _between(rows[0], rows[1], weights[1] / sum(weights))
        else:
            merged[encoder] = torch.cat(weighted) if how == "concatenate" else torch.stack(weighted).sum(0)
    origin = [{"name": word.name, "weight": weight} for word, weight in zip(words, weights, strict=True)]
    return Embedding(name, merged, {"merged": json.dumps({"how": how, "of": origin})})


def _fitted(word: Embedding, first: Embedding) -> dict[str, Tensor]:
    widths, own = ({e: v.shape[-1] for e, v in w.vectors.items()} for w in (first, word))
    try:
        return word.fitted_to(widths)
    except UserError:
        raise UserError(
            f"'{first.name}' has vectors of width {_widths(widths)} and '{word.name}' of {_widths(own)}: words of "
            "different families of models cannot be merged."
        ) from None


def _between(one: Tensor, other: Tensor, share: float) -> Tensor:
    """[n, width] each; share: 0 is the one, 1 the other."""
    norms = [v.norm(dim=-1, keepdim=True) for v in (one, other)]
    a, b = (v / norm.clamp_min(1e-12) for v, norm in zip((one, other), norms, strict=True))
    angle = (a * b).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    arc = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine.clamp_min(1e-12)
    direction = torch.where(sine < 1e-4, torch.lerp(a, b, share), arc)  # on one line there is no arc to follow
    return direction * torch.lerp(norms[0], norms[1], share)
