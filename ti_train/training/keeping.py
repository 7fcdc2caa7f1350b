"""Which step's vectors a run leaves in its file: one rule, however the run ends.

The last step's, unless the run has lost more than half of what it had gained, measured by the validation loss: then
those of the step at which the loss was lowest. The loss has few samples, so a single measurement decides nothing: gain
and loss are differences of medians of three measurements in a row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import median

from torch import Tensor

IN_A_ROW = 3  # measurements in a median
LOST = 0.5  # the part of the gain
WHAT_TO_TRY = "Try fewer steps, a lower learning rate, or another initial text, and look at the previews."


@dataclass(frozen=True)
class Measured:
    """A measurement of the validation loss. smoothed: the median of it and the ones before, at most IN_A_ROW."""

    step: int
    loss: float
    smoothed: float


@dataclass(frozen=True)
class Course:
    """The validation losses of a run, as far as the rule needs them. Measurements that are not finite do not count."""

    untrained: float | None = None  # at step 0
    recent: tuple[float, ...] = ()  # the latest ones, at most IN_A_ROW
    latest: Measured | None = None
    best: Measured | None = None  # the lowest smoothed one after step 0
    vectors: Mapping[str, Tensor] = field(default_factory=dict)  # of the best step
    since: int = 0  # measurements after the best step's

    def after(self, step: int, loss: float, vectors: Mapping[str, Tensor]) -> Course:
        """The course with one more measurement, of these vectors."""
        if not math.isfinite(loss):
            return self
        if step == 0:
            return replace(self, untrained=loss, recent=(loss,))
        recent = (*self.recent, loss)[-IN_A_ROW:]
        latest = Measured(step, loss, median(recent))
        course = replace(self, recent=recent, latest=latest)
        if self.best and latest.smoothed >= self.best.smoothed:
            return replace(course, since=self.since + 1)
        return replace(course, best=latest, vectors=vectors, since=0)

    def stalled(self, patience: int) -> bool:
        """Whether the loss has not fallen any further in `patience` measurements; never if that is 0."""
        return 0 < patience <= self.since

    @property
    def keeps_best(self) -> bool:
        """Whether the best step's vectors are kept, rather than the last step's."""
        if self.untrained is None or self.latest is None or self.best is None:
            return False
        gained, lost = self.untrained - self.best.smoothed, self.latest.smoothed - self.best.smoothed
        return gained > 0 and lost > LOST * gained

    @property
    def loss(self) -> float | None:
        """The validation loss of the vectors that are kept, or the latest one if they were not measured."""
        measured = self.best if self.keeps_best else self.latest
        return measured.loss if measured else None

    @property
    def improved(self) -> bool | None:
        """Whether the vectors that are kept are better than the untrained ones; None if that was not measured."""
        return None if self.untrained is None or self.loss is None else self.loss <= self.untrained

    def kept(self, last: int) -> int:
        """The step whose vectors are kept after step `last`."""
        return self.best.step if self.best and self.keeps_best else last

    def why(self, last: int) -> str:
        """Which step's vectors are kept after step `last`, and why, in a sentence."""
        if self.best and self.latest and self.keeps_best:
            return (
                f"Step {self.best.step} of {last} is kept: the validation loss was {self.best.loss:#.4g} there and has "
                f"risen to {self.latest.loss:#.4g} since (untrained: {self.untrained:#.4g})."
            )
        return f"Step {last} is kept, the last one{self._change(last)}."

    def _change(self, last: int) -> str:
        if self.latest is None or self.untrained is None:
            return ""
        where = "" if self.latest.step == last else f" at step {self.latest.step}"
        return f" (validation loss {self.latest.loss:#.4g}{where}, untrained: {self.untrained:#.4g})"

    def warning(self, last: int) -> str:
        """What the user should know of a run that ended worse than it was, or ""."""
        if self.improved is False:
            return f"The embedding is not better than its initial vectors: {self.why(last)} {WHAT_TO_TRY}"
        return f"{self.why(last)} {WHAT_TO_TRY}" if self.keeps_best else ""

    def written(self) -> str:
        """All but the vectors, as JSON."""
        values = asdict(replace(self, vectors={}))
        del values["vectors"]
        return json.dumps(values)

    @classmethod
    def read(cls, text: str, vectors: Mapping[str, Tensor]) -> Course:
        """What `written` has written. Raises KeyError, TypeError and ValueError for anything else."""
        values = json.loads(text)
        latest, best = (Measured(**values[key]) if values[key] else None for key in ("latest", "best"))
        return cls(values["untrained"], tuple(values["recent"]), latest, best, vectors, values.get("since", 0))
