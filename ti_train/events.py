"""What a training tells whoever drives it, in the order in which it happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from .embedding import Embedding


@dataclass(frozen=True)
class Step:
    """A completed step; step 0 is the untrained word. `evaluation`, the noise-free loss, is there when it was due.

    `embedding` is what was measured then; it is not compared.
    """

    step: int
    loss: float | None
    validation_loss: float | None
    learning_rate: float
    norm: float  # mean L2 norm of the vectors
    cosine: float  # mean cosine similarity to the start
    seconds: float  # spent in steps since the run began
    embedding: Embedding | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Preview:
    """A picture of one of the user's prompts, sampled with the word as it is after a step."""

    step: int
    prompt: str
    image: Image.Image


@dataclass(frozen=True)
class Checkpoint:
    """The word and the run's state were saved after a step."""

    step: int
    path: Path


@dataclass(frozen=True)
class Warning:
    """Something to tell the user, in words; the run goes on."""

    message: str


@dataclass(frozen=True)
class Done:
    """The run is complete, and the word is in its file; seconds: spent in steps, those before an interruption too."""

    embedding: Embedding
    path: Path
    seconds: float


Event = Step | Preview | Checkpoint | Warning | Done
