"""The events of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from .embedding import Embedding
from .text import printable


@dataclass(frozen=True)
class Step:
    """A completed step; step 0 is the untrained embedding.

    validation_loss: None if it was not due. validation_error: the standard error of its change since step 0, as a part
    of it (see training/keeping.py). embedding: the one that it was computed with; kept: the step whose vectors the run
    would leave if it ended now, and their validation loss; both with the validation loss only, and ignored by
    comparisons.
    """

    step: int
    loss: float | None
    validation_loss: float | None
    learning_rate: float
    norm: float  # mean L2 norm of the vectors
    cosine: float  # mean cosine similarity to the initial vectors
    seconds: float  # spent in steps, those before an interruption too
    embedding: Embedding | None = field(default=None, compare=False, repr=False)
    kept: tuple[int, float] | None = field(default=None, compare=False)
    validation_error: float | None = None


@dataclass(frozen=True)
class Preview:
    """An image of a preview prompt, sampled with the embedding after a step, which comparisons ignore.

    number: of the prompt, from 0. Prompts may be equal: each has a seed of its own.
    """

    step: int
    prompt: str
    image: Image.Image
    embedding: Embedding = field(compare=False, repr=False)
    number: int


@dataclass(frozen=True)
class Checkpoint:
    """The state was saved after a step. path: the embedding's, or the state's if the embedding is not in its place."""

    step: int
    path: Path


@dataclass(frozen=True)
class Warning:
    """A message for the user, made printable; the run continues."""

    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(self.message))


@dataclass(frozen=True)
class Done:
    """The run is complete, or was asked to end early, and its embedding saved.

    seconds: spent in steps, those before an interruption too. kept: the step whose vectors these are; why: which one,
    and the reason, in a sentence. improved: whether they are better than the untrained ones by the validation loss,
    None if that was not measured.
    """

    embedding: Embedding
    path: Path
    seconds: float
    kept: int
    why: str
    improved: bool | None
    complete: bool = True


Event = Step | Preview | Checkpoint | Warning | Done
