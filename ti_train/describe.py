"""Describes an embedding: nearest words of the vocabulary, norms, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .editability import INITIAL
from .embedding import Embedding, step_in
from .formats import PRECISIONS, Reading, config_of, rounding_error, without_thumbnail
from .host import Vectors, Vocabulary
from .text import printable

BASE_MODEL = (
    "sd_checkpoint_name",
    "ss_sd_model_name",
    "base_model",
    "modelspec.architecture",
)  # in the order of preference; each tool writes its own
SHOWN = ("init", "steps", "learning_rate", "templates", "seed")  # the settings that differ between embeddings most


def describe(embedding: Embedding, vectors: Vectors, vocabularies: Mapping[str, Vocabulary]) -> str:
    """A description for people.

    vectors: the embedding's, under the model's encoder names. vocabularies: none if the model is not at hand.
    """
    widths = ", ".join(str(rows.shape[-1]) for rows in vectors.values())
    lines = [f"{embedding.name}: {embedding.num_vectors} vector(s) of width {widths}"]
    for encoder, rows in vectors.items():
        vocabulary = vocabularies.get(encoder)
        if vocabulary:
            lines.append(f"median norm of the vocabulary ({encoder}): {float(vocabulary.norms.median()):.3f}")
        for number, row in enumerate(rows, 1):
            line = f"vector {number}: norm {float(row.norm()):.3f}"
            if vocabulary:
                near = ", ".join(f"{word} {similarity:.2f}" for word, similarity in vocabulary.nearest(row))
                line += f", nearest words: {near}"
            lines.append(line)
    config = config_of(embedding)
    lines += [f"{key}: {config[key]}" for key in SHOWN if key in config]
    lines += [f"{key}: {embedding.provenance[key]}" for key in ("step", "software") if key in embedding.provenance]
    return "\n".join(map(printable, lines))


def facts(reading: Reading) -> dict[str, Any]:
    """The contents of a file as JSON-compatible values, for `inspect`."""
    word = reading.embedding
    found: dict[str, Any] = {
        "name": word.name,
        "layout": reading.layout,
        "encoders": {
            encoder: {
                "vectors": rows.shape[0],
                "dim": rows.shape[1],
                "dtype": str(reading.dtypes[encoder]).removeprefix("torch."),
                "norms": [round(norm, 4) for norm in rows.norm(dim=-1).tolist()],
            }
            for encoder, rows in word.vectors.items()
        },
        "step": step_in(word.provenance),
        "base_model": next((word.provenance[key] for key in BASE_MODEL if word.provenance.get(key)), None),
    }
    if reading.outputs:
        found["output vectors, used by OneTrainer only"] = ", ".join(reading.outputs)
    hidden = ("config", INITIAL)  # shown apart, or thousands of characters
    header = {key: value for key, value in without_thumbnail(word.provenance).items() if key not in hidden}
    found["provenance"] = header | {"config": config_of(word)}
    return found


def neighbours(vocabulary: Vocabulary, rows: Tensor) -> dict[str, Any]:
    """The nearest words of the vocabulary for vectors [n, width], for `inspect`."""
    return {
        "vocabulary norm (median)": round(float(vocabulary.norms.median()), 4),
        "nearest words": [[[near, round(s, 3)] for near, s in vocabulary.nearest(vector)] for vector in rows],
    }


def writing(word: Embedding, names: Iterable[str], layout: str, precision: str, outputs: bool) -> list[str]:
    """A report of what was written. outputs: whether the embedding also has vectors for the encoders' output."""
    sizes = ", ".join(f"{v.shape[0]} x {v.shape[1]} ({encoder})" for encoder, v in word.vectors.items())
    lines = [f"Wrote {' and '.join(names)}: {sizes}, {precision}, as {layout}."]
    if precision != "fp32":
        lines.append(rounding(word, precision))
    if outputs and layout != "onetrainer":
        lines.append("The vectors for the encoders' output were not written: only OneTrainer uses them.")
    return lines


def rounding(word: Embedding, precision: str) -> str:
    """One sentence about the rounding error of fp16 or bf16."""
    largest, relative = rounding_error(word, PRECISIONS[precision])
    return (
        f"Rounding to {precision} changes each value by at most {largest:.1e}, "
        f"and each vector by at most {relative:.1e} of its norm."
    )
