"""An embedding: its vectors for each text encoder, and where they came from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from .errors import UserError
from .host import Vectors, Vocabulary

SINGLE = "emb_params"  # the encoder's name in files for models with a single text encoder, which do not name it
MEASURED = {"norms", "cosine_to_init"}  # header keys that are true of the trained vectors only
CLIPS = ("clip_", SINGLE)  # what the names of CLIP encoders begin with
MOST_STEPS = 2**31  # no training has so many
ONE_CLIP = {SINGLE, "clip_l", "clip_h"}  # the names that hosts give the single text encoder of Stable Diffusion 1 and 2


def number_in(header: Mapping[str, str], key: str) -> float | None:
    """A finite number in a header, which is anybody's text; None if there is none."""
    try:
        number = float(header[key])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) else None


def step_in(header: Mapping[str, str]) -> int | None:
    """The number of training steps in a header; None if it does not say that."""
    step = number_in(header, "step")
    return int(step) if step is not None and step.is_integer() and 0 <= step < MOST_STEPS else None


@dataclass(frozen=True)
class Embedding:
    """vectors: encoder -> [num_vectors, width] fp32 on the CPU. provenance: the file's header."""

    name: str
    vectors: dict[str, Tensor]
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def num_vectors(self) -> int:
        return next(iter(self.vectors.values())).shape[0]

    def fitted_to(self, widths: Mapping[str, int]) -> dict[str, Tensor]:
        """The vectors under the model's encoder names.

        widths: encoder -> width of its input embedding. Raises UserError with both widths if they differ.
        """
        vectors = self.vectors
        if len(vectors) == len(widths) == 1 and (SINGLE in vectors or {*vectors, *widths} <= ONE_CLIP):
            vectors = dict(zip(widths, vectors.values(), strict=True))
        if {encoder: v.shape[-1] for encoder, v in vectors.items()} != dict(widths):
            have = {encoder: v.shape[-1] for encoder, v in self.vectors.items()}
            raise UserError(
                f"The embedding '{self.name}' has vectors of width {_widths(have)}, but the model's text encoder needs "
                f"{_widths(widths)}. Use an embedding that was trained on the same model family."
            )
        return {encoder: vectors[encoder] for encoder in widths}

    def part_for(self, widths: Mapping[str, int]) -> tuple[dict[str, Tensor], str | None]:
        """As fitted_to, and if the file names only some of the model's encoders, those; with a remark then.

        Raises UserError if there is nothing that fits.
        """
        common = {e: v for e, v in self.vectors.items() if widths.get(e) == v.shape[-1] and e != SINGLE}
        if not common or len(common) == len(widths) == len(self.vectors):
            return self.fitted_to(widths), None
        missing = [encoder for encoder in widths if encoder not in common]
        unused = [encoder for encoder in self.vectors if encoder not in common]
        remark = f"The embedding '{self.name}' is used for {' + '.join(common)} only."
        remark += f" It has no vectors for the model's {' + '.join(missing)}." if missing else ""
        return common, remark + (f" The model does not use those for {' + '.join(unused)}." if unused else "")

    def scaled(self, strength: float = 1.0, norm: float = 0.0) -> Embedding:
        """Every vector rescaled to L2 norm `norm` (0: unchanged), then multiplied by `strength`."""
        vectors = self.vectors
        if norm:
            vectors = {e: norm * v / v.norm(dim=-1, keepdim=True).clamp_min(1e-12) for e, v in vectors.items()}
        if strength != 1:
            vectors = {e: strength * v for e, v in vectors.items()}
        if vectors is self.vectors:
            return self
        provenance = {key: value for key, value in self.provenance.items() if key not in MEASURED}
        return Embedding(self.name, vectors, provenance | {"scaled": f"norm {norm:g}, strength {strength:g}"})


def _widths(widths: Mapping[str, int]) -> str:
    named = len(widths) > 1 or not set(widths) <= ONE_CLIP
    return " + ".join(f"{width} ({encoder})" if named else str(width) for encoder, width in widths.items())


def from_text(vocabulary: Vocabulary, text: str, num_vectors: int) -> tuple[Tensor, str | None]:
    """Initial vectors [num_vectors, width] from the vocabulary's rows, and a remark unless text and rows are one token.

    A text with more tokens is condensed: each vector is the mean of a group of neighbouring tokens' rows, with their
    norm. A shorter one is repeated. Raises UserError for a text without tokens.
    """
    rows = vocabulary.rows(text)
    if not len(rows):
        raise UserError(f"The initial text '{text}' has no tokens. Use a plain word, such as \"cat\".")
    if len(rows) == num_vectors == 1:
        return rows, None
    remark = f"'{text}' is {counted(len(rows), 'token')} of this model{spelt(vocabulary, text)}: "
    if len(rows) == num_vectors:
        return rows, f"{remark}{num_vectors} vectors."
    if len(rows) < num_vectors:
        return rows[torch.arange(num_vectors) % len(rows)], f"{remark}repeated in {num_vectors} vectors."
    return condensed(rows, num_vectors), f"{remark}condensed into {counted(num_vectors, 'vector')}."


def condensed(rows: Tensor, count: int) -> Tensor:
    """Rows [n, width] as `count` <= n: the mean of each group of neighbours, scaled to the mean of their norms."""
    means = [
        torch.nn.functional.normalize(group.mean(0), dim=0) * group.norm(dim=-1).mean()
        for group in torch.tensor_split(rows, count)
    ]
    return torch.stack(means)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def spelt(vocabulary: Vocabulary, text: str) -> str:
    """The text's tokens in parentheses; "" if they do not spell it, as parts of a letter do not."""
    pieces = [vocabulary.spell(token).strip("▁ ") for token in vocabulary.tokenize(text)]
    spells = "".join(pieces).casefold() == "".join(text.split()).casefold()
    return f" ({', '.join(map(repr, pieces))})" if spells else ""


def first_of(vectors: Vectors, count: int) -> dict[str, Tensor]:
    """The first `count` vectors for each encoder."""
    return {encoder: v[:count] for encoder, v in vectors.items()}


def squared_distance(vectors: Vectors, others: Vectors) -> Tensor:
    """Squared L2 distance, averaged over vectors and encoders: a scalar tensor."""
    return torch.stack([(v - others[encoder]).pow(2).sum(dim=-1).mean() for encoder, v in vectors.items()]).mean()


def mean_norm(vectors: Vectors) -> Tensor:
    """L2 norm, averaged over vectors and encoders: a scalar tensor."""
    return torch.stack([v.norm(dim=-1).mean() for v in vectors.values()]).mean()


def mean_cosine(vectors: Vectors, others: Vectors) -> Tensor:
    """Cosine similarity, averaged over vectors and encoders: a scalar tensor."""
    pairs = [torch.cosine_similarity(v, others[encoder], dim=-1).mean() for encoder, v in vectors.items()]
    return torch.stack(pairs).mean()


Merge = Literal["concatenate", "sum", "interpolate"]
MERGES = get_args(Merge)


def merge(embeddings: Sequence[Embedding], how: str, weights: Sequence[float], name: str) -> Embedding:
    """Merges embeddings into one, under the encoder names of the first.

    concatenate: the vectors in sequence, each multiplied by its embedding's weight. sum: the weighted sum of the
    vectors at each position. interpolate: between two embeddings, spherically in direction (Shoemake 1985) and linearly
    in norm; only the ratio of the weights counts. Raises UserError for embeddings that cannot be merged.
    """
    if len(embeddings) < 2 or len(weights) != len(embeddings):
        raise UserError(
            f"Got {len(embeddings)} embedding(s) and {len(weights)} weight(s). "
            "Give two or more embeddings, and one weight each."
        )
    parts = [_fitted(embedding, embeddings[0]) for embedding in embeddings]
    counts = [embedding.num_vectors for embedding in embeddings]
    if how != "concatenate" and len(set(counts)) > 1:
        raise UserError(
            f"The embeddings have {' and '.join(map(str, counts))} vectors. '{how}' needs the same number "
            "of vectors in each; use 'concatenate' instead."
        )
    if how == "interpolate" and (len(embeddings) != 2 or min(weights) < 0 or sum(weights) == 0):
        raise UserError("'interpolate' needs exactly two embeddings, with weights of 0 or more that are not both 0.")
    merged = {}
    for encoder in parts[0]:
        rows = [part[encoder] for part in parts]
        weighted = [weight * v for weight, v in zip(weights, rows, strict=True)]
        if how == "interpolate":
            share = weights[1] / sum(weights)
            merged[encoder] = between(rows[0], rows[1], share, share)
        else:
            merged[encoder] = torch.cat(weighted) if how == "concatenate" else torch.stack(weighted).sum(0)
    origin = [{"name": e.name, "weight": weight} for e, weight in zip(embeddings, weights, strict=True)]
    return Embedding(name, merged, {"merged": json.dumps({"how": how, "of": origin})})


def _fitted(embedding: Embedding, first: Embedding) -> dict[str, Tensor]:
    widths, own = ({e: v.shape[-1] for e, v in each.vectors.items()} for each in (first, embedding))
    try:
        return embedding.fitted_to(widths)
    except UserError:
        raise UserError(
            f"'{first.name}' has vectors of width {_widths(widths)} and '{embedding.name}' of {_widths(own)}. "
            "Embeddings of different model families cannot be merged."
        ) from None


def between(one: Tensor, other: Tensor, share: float, of_norm: float) -> Tensor:
    """Between [n, width] and [n, width], spherically in direction (Shoemake 1985) and linearly in norm.

    share, of_norm: of the way in direction and in norm; 0 is the first, 1 the second.
    """
    norms = [v.norm(dim=-1, keepdim=True) for v in (one, other)]
    a, b = (v / norm.clamp_min(1e-12) for v, norm in zip((one, other), norms, strict=True))
    angle = (a * b).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    arc = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine.clamp_min(1e-12)
    direction = torch.where(sine < 1e-4, torch.lerp(a, b, share), arc)  # (anti)parallel vectors span no arc
    return direction * torch.lerp(norms[0], norms[1], of_norm)
