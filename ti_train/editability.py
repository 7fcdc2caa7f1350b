"""Editability of a trained embedding: its vectors turned towards its initial ones, which travel in the file's header.

Training lengthens vectors and turns them away from the vocabulary, and then they drown the rest of a prompt. Turning
them back by a share keeps most of what they show (TEA: Bui et al. 2026, arXiv 2506.22685). It needs no training and no
model, so it can be done to a file.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from .embedding import MEASURED, Embedding, between, from_text, merge
from .errors import UserError
from .formats import config_of
from .host import Vectors, Vocabulary
from .names import names_file
from .text import json_value

INITIAL = "initial_vectors"  # header key: JSON, encoder -> base64 of [n, width] in half precision, little-endian
LONGEST = 2**19  # characters of the header: 75 vectors of Stable Diffusion XL take 410,000
NORM_BEFORE_DIRECTION = 2.5  # TEA's words: half of the way in norm for a fifth of the way in direction
HELP = (
    "Turns the embedding towards its initial text: the rest of a prompt counts for more, its images for less. "
    "0 = as trained, 0.2 = a good first try, 1 = the initial text."
)
SHEET = (0.0, 0.1, 0.2, 0.3)  # strengths that are worth comparing


def recorded(initial: Vectors) -> dict[str, str]:
    """The header's entry for a run's initial vectors; {} if they are too many for a header.

    In the same order for a resumed run, which has read them from a file.
    """
    halves = {encoder: v.detach().float().cpu().numpy().astype("<f2").tobytes() for encoder, v in initial.items()}
    entry = json.dumps({encoder: base64.b64encode(data).decode() for encoder, data in halves.items()}, sort_keys=True)
    return {INITIAL: entry} if len(entry) <= LONGEST else {}


def initial_of(embedding: Embedding) -> dict[str, torch.Tensor] | None:
    """The initial vectors in an embedding's header, under its own encoder names; None if they are not there.

    A damaged entry counts as none: the header is anybody's text.
    """
    try:
        parts = json_value(embedding.provenance.get(INITIAL, ""))
        rows = {e: np.frombuffer(base64.b64decode(data, validate=True), "<f2") for e, data in parts.items()}
        found = {e: torch.from_numpy(row.astype(np.float32)).view(embedding.num_vectors, -1) for e, row in rows.items()}
    except (ValueError, TypeError, AttributeError, RuntimeError, binascii.Error):
        return None
    return _named_as(embedding, found)


def _named_as(embedding: Embedding, initial: Vectors) -> dict[str, torch.Tensor] | None:
    """Initial vectors under the embedding's own encoder names; None if they do not fit it.

    A single encoder has one name in a run and another in a file.
    """
    if len(initial) == len(embedding.vectors) == 1:
        initial = dict(zip(embedding.vectors, initial.values(), strict=True))
    pairs = [(v, initial.get(encoder)) for encoder, v in embedding.vectors.items()]
    fits = all(own is not None and own.shape == v.shape and own.isfinite().all() for v, own in pairs)
    return {encoder: initial[encoder] for encoder in embedding.vectors} if fits else None


def editable(embedding: Embedding, strength: float, vocabularies: Mapping[str, Vocabulary] | None = None) -> Embedding:
    """The embedding, turned towards its initial vectors by `strength` of the angle, 0 to 1 (see HELP).

    The norm goes NORM_BEFORE_DIRECTION times as far, at most all the way. vocabularies: of a model, from which the
    initial text of a file without initial vectors is read. Raises UserError if neither gives them.
    """
    if not 0 <= strength <= 1:
        raise UserError(f"editability is {strength:g}; it must be from 0 (as trained) to 1 (the initial text).")
    if not strength:
        return embedding
    initial = initial_of(embedding) or _from_recorded_text(embedding, vocabularies or {})
    norm = min(1.0, NORM_BEFORE_DIRECTION * strength)
    turned = {e: between(v.float(), initial[e], strength, norm) for e, v in embedding.vectors.items()}
    kept = {key: value for key, value in embedding.provenance.items() if key not in MEASURED}
    return replace(embedding, vectors=turned, provenance=kept | {"editability": f"{strength:g}"})


def for_model(
    embedding: Embedding, widths: Mapping[str, int], vocabulary: Callable[[str], Vocabulary], editability: float = 0.0
) -> tuple[Embedding, list[str]]:
    """What a model uses of an embedding, under its own encoder names and with this editability; and what is not used.

    widths, vocabulary: of the model's encoders. Raises UserError if nothing of it fits.
    """
    vectors, remark = embedding.part_for(widths)
    used = replace(embedding, vectors=vectors)
    vocabularies = {encoder: vocabulary(encoder) for encoder in vectors} if editability else {}
    return editable(used, editability, vocabularies), [remark] if remark else []


def _from_recorded_text(embedding: Embedding, vocabularies: Mapping[str, Vocabulary]) -> dict[str, torch.Tensor]:
    text = str(config_of(embedding).get("init") or embedding.provenance.get("init", ""))
    text = "" if names_file(text) else text
    if not text or not vocabularies:
        with_model = f", or use it with its model in Load Embedding or generate, from its initial text '{text}'"
        raise UserError(
            f"The file of '{embedding.name}' does not record its initial vectors, towards which editability turns it: "
            f"another tool or an older version wrote it. Set editability to 0{with_model if text else ''}, or train "
            "the embedding again."
        )
    rows = {e: from_text(each, text, embedding.num_vectors)[0].cpu() for e, each in vocabularies.items()}
    initial = _named_as(embedding, rows)
    if initial is None:
        raise UserError(f"The embedding '{embedding.name}' is not for this model's text encoders. Use its own model.")
    return initial


def merge_with_initial(embeddings: Sequence[Embedding], how: str, weights: Sequence[float], name: str) -> Embedding:
    """As merge(), with the initial vectors merged in the same way, if all embeddings have them."""
    whole, parts = merge(embeddings, how, weights, name), [initial_of(each) for each in embeddings]
    if not all(parts):
        return whole
    initial = [replace(each, vectors=part) for each, part in zip(embeddings, parts, strict=True) if part]
    return replace(whole, provenance=whole.provenance | recorded(merge(initial, how, weights, name).vectors))
