"""The evaluation's judge on the embedded model: reads the drawn attributes from the pixels, in place of CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ti_train.errors import UserError
from ti_train.evaluation.evaluate import EvaluationPrompts

from .concepts import Concept, load
from .measure import Mask, edit_shown, fidelity, pixels, read, segment

EDITS: dict[str, dict[str, str]] = {  # prompt -> what it asks for, in edit_shown's words
    **{f"a photo of a * on a {b} background": {"background": b} for b in ("navy", "sand", "white", "maroon")},
    "a sketch of a *": {"style": "sketch"},
    "a neon sign of a *": {"style": "neon"},
    "a * in the style of mori": {"style": "mori"},
    "a * in the style of vega": {"style": "vega"},
}
SHAPES = {f"a {shape} in the style of *": shape for shape in ("moon", "arrow", "triangle", "star")}
PROMPTS = {
    "object": EvaluationPrompts("a photo of a *", tuple(EDITS)),
    "style": EvaluationPrompts("a painting in the style of *", tuple(SHAPES)),
}


class DrawnJudge:
    """A Judge of a drawn concept: how much of it the samples show, and in how many the edit shows, 0 to 1."""

    name = "the demo's drawn attributes, read from the pixels"

    def __init__(self, concept: Concept, pictures: Sequence[Image.Image]) -> None:
        self.concept, self.pictures = concept, pictures

    @classmethod
    def load(cls, folder: Path, pictures: Sequence[Image.Image]) -> DrawnJudge:
        """Raises UserError where the folder is no drawn concept."""
        if not (folder / "concept.json").is_file():
            raise UserError(
                f"'{folder}' has no concept.json: python -m demo evaluate measures the drawn ones of demo/concepts. "
                "Give one of their folders, or measure pictures of your own with python -m ti_train evaluate."
            )
        return cls(load(folder / "concept.json"), pictures)

    @property
    def prompts(self) -> EvaluationPrompts:
        return PROMPTS["style" if self.concept.kind == "style" else "object"]

    def image_similarity(self, samples: Sequence[Image.Image]) -> float:
        return sum(fidelity(picture, self.concept) for picture in samples) / len(samples)

    def text_similarity(self, samples: Sequence[Image.Image], prompt: str) -> float:
        return sum(self._shown(picture, prompt) for picture in samples) / len(samples)

    def similarity_of_pictures(self) -> float:
        return self.image_similarity(self.pictures)

    def _shown(self, picture: Image.Image, prompt: str) -> bool:
        if prompt in SHAPES:
            image = pixels(picture)
            return read(image, solid(segment(image))).shape == SHAPES[prompt]
        if prompt in EDITS:
            return edit_shown(picture, **EDITS[prompt])
        raise UserError(f"The demo's judge cannot measure '{prompt}'. It measures: {', '.join([*EDITS, *SHAPES])}.")


def solid(figure: Mask) -> Mask:
    """A figure with its holes filled: an artist may draw no more than its outline."""
    rim = np.pad(figure, 1)
    image = Image.fromarray(np.where(rim, 255, 0).astype(np.uint8)).copy()  # an array's own memory is read-only
    ImageDraw.floodfill(image, (0, 0), 128)
    filled: Mask = np.asarray(image)[1:-1, 1:-1] != 128
    return filled
