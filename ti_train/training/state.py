"""The state of a run between two steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from ..reproducible import new_run
from .keeping import Course
from .pictures import Pictures


@dataclass(frozen=True)
class State:
    """A run after its last completed step. Tensors are fp32."""

    step: int
    seconds: float  # spent in steps
    vectors: dict[str, Tensor]  # encoder -> [num_vectors, width]
    initial: dict[str, Tensor]  # the same before step 1; the file they came from may have been replaced
    optimizer: dict[str, Tensor]
    per_image: dict[str, Tensor] = field(default_factory=dict)  # encoder -> [images, width]: per-image tokens
    course: Course = field(default_factory=Course)
    pictures: Pictures = field(default_factory=dict)
    averaged: dict[str, Tensor] = field(default_factory=dict)  # as `vectors`: over the last part of the run, so far
    init: str = ""  # the initial text that was chosen from several
    run: str = field(default_factory=new_run)  # tells the files of this run from those of others

    @property
    def result(self) -> dict[str, Tensor]:
        """The vectors that an embedding of this state has."""
        return self.averaged or self.vectors

    def following(self, before: State, seconds: float) -> State:
        """This state as the next one of the run in which `before` was, after so many seconds."""
        course, pictures = before.course, before.pictures
        return replace(self, seconds=seconds, course=course, pictures=pictures, init=before.init, run=before.run)

    @property
    def num_vectors(self) -> int:
        return len(next(iter(self.vectors.values())))
