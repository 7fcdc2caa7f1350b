"""A learnt word in words: its neighbours in the vocabulary, the lengths of its vectors, where it came from."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw

from .embedding import Embedding
from .formats import config_of
from .hosts.base import Vectors, Vocabulary
from .lettering import font, wrapped

SHOWN = ("init", "steps", "learning_rate", "templates", "seed")  # of the settings, those that tell words apart


def describe(embedding: Embedding, vectors: Vectors, vocabularies: Mapping[str, Vocabulary]) -> str:
    """Lines of text; `vectors` are the embedding's under the model's encoder names."""
    widths = ", ".join(str(rows.shape[-1]) for rows in vectors.values())
    lines = [f"{embedding.name}: {embedding.num_vectors} vector(s) of width {widths}"]
    for encoder, rows in vectors.items():
        vocabulary = vocabularies[encoder]
        lines.append(f"lengths of this model's words ({encoder}): {float(vocabulary.norms.median()):.3f} (median)")
        for number, row in enumerate(rows, 1):
            near = ", ".join(f"{word} {similarity:.2f}" for word, similarity in vocabulary.nearest(row))
            lines.append(f"vector {number}: length {float(row.norm()):.3f}, nearest words: {near}")
    config = config_of(embedding)
    lines += [f"{key}: {config[key]}" for key in SHOWN if key in config]
    lines += [f"{key}: {embedding.provenance[key]}" for key in ("step", "software") if key in embedding.provenance]
    return "\n".join(lines)


def card(text: str, side: int = 640, margin: int = 16) -> Image.Image:
    """The text as a picture, its lines broken to fit."""
    face, height = font(17), 26
    lines = [line for part in text.splitlines() for line in wrapped(part, side - 2 * margin, face)]
    picture = Image.new("RGB", (side, 2 * margin + height * len(lines)), "white")
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        pen.text((margin, margin + height * number), line, "black", face)
    return picture
