"""Which step's vectors a run leaves in its file: one rule, however the run ends.

The last step's, unless the validation loss has clearly risen since the step where it was lowest: then those of that
step. Two measurements have the same samples, so the difference of each sample's loss counts, and the standard error of
their mean: what the samples agree on is clear, what only some of them say is not. Late in a run they agree on
differences that no picture shows, so a rise must also be a part of what was gained. benchmarks/README.md has how much
fidelity this rule and others cost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, stdev

from torch import Tensor

from ..text import json_value

CLEAR = 2.0  # standard errors
LOST = 0.1  # the part of the gain
LARGEST = 700.0  # logarithm of a loss; exp() has no more
WHAT_TO_TRY = "Try fewer steps, a lower learning rate, or another initial text, and look at the previews."


@dataclass(frozen=True)
class Measured:
    """A measurement of the validation loss. logs: the logarithm of the loss of each sample."""

    step: int
    logs: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The geometric mean over the samples."""
        return math.exp(fmean(self.logs))

    def above(self, other: Measured) -> tuple[float, float]:
        """By how much its loss is higher than another one of the same samples, and the standard error of that.

        Both are differences of logarithms, so for small ones parts of the loss.
        """
        pairs = [mine - theirs for mine, theirs in zip(self.logs, other.logs, strict=True)]
        return fmean(pairs), stdev(pairs) / math.sqrt(len(pairs))


@dataclass(frozen=True)
class Course:
    """The validation losses of a run, as far as the rule needs them. Measurements that are not finite do not count."""

    untrained: Measured | None = None  # at step 0
    latest: Measured | None = None
    best: Measured | None = None  # the lowest one after step 0
    vectors: Mapping[str, Tensor] = field(default_factory=dict)  # of the best step
    since: int = 0  # measurements after the best step's

    def after(self, step: int, logs: Sequence[float], vectors: Mapping[str, Tensor]) -> Course:
        """The course with one more measurement, of these vectors. logs: of its samples' losses."""
        if not all(map(math.isfinite, logs)):
            return self
        measured = Measured(step, tuple(logs))
        if step == 0:
            return replace(self, untrained=measured)
        course = replace(self, latest=measured)
        if self.best and measured.loss >= self.best.loss:
            return replace(course, since=self.since + 1)
        return replace(course, best=measured, vectors=vectors, since=0)

    def stalled(self, patience: int) -> bool:
        """Whether the loss has not fallen any further in `patience` measurements; never if that is 0."""
        return 0 < patience <= self.since

    @property
    def error(self) -> float | None:
        """The standard error of the change of the loss since step 0, as a part of the loss."""
        return self.latest.above(self.untrained)[1] if self.latest and self.untrained else None

    @property
    def keeps_best(self) -> bool:
        """Whether the best step's vectors are kept, rather than the last step's."""
        if self.latest is None or self.best is None:
            return False
        risen, error = self.latest.above(self.best)
        gained, _ = self.untrained.above(self.best) if self.untrained else (0.0, 0.0)
        return risen > max(CLEAR * error, LOST * gained)

    @property
    def loss(self) -> float | None:
        """The validation loss of the vectors that are kept, or the latest one if they were not measured."""
        measured = self.best if self.keeps_best else self.latest
        return measured.loss if measured else None

    @property
    def improved(self) -> bool | None:
        """Whether the vectors that are kept are better than the untrained ones; None if that was not measured."""
        return None if self.untrained is None or self.loss is None else self.loss <= self.untrained.loss

    def kept(self, last: int) -> int:
        """The step whose vectors are kept after step `last`."""
        return self.best.step if self.best and self.keeps_best else last

    def why(self, last: int) -> str:
        """Which step's vectors are kept after step `last`, and why, in a sentence."""
        if self.best and self.latest and self.keeps_best:
            untrained = f" (untrained: {self.untrained.loss:#.4g})" if self.untrained else ""
            return (
                f"Step {self.best.step} of {last} is kept: the validation loss was {self.best.loss:#.4g} there and has "
                f"risen to {self.latest.loss:#.4g} since{untrained}."
            )
        return f"Step {last} is kept, the last one{self._change(last)}."

    def _change(self, last: int) -> str:
        if self.latest is None or self.untrained is None:
            return ""
        where = "" if self.latest.step == last else f" at step {self.latest.step}"
        return f" (validation loss {self.latest.loss:#.4g}{where}, untrained: {self.untrained.loss:#.4g})"

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
        """What `written` has written. Raises LookupError, TypeError, ValueError and OverflowError for anything else."""
        values = json_value(text)
        given = [values[key] for key in ("untrained", "latest", "best")]
        measured = [value and Measured(int(value["step"]), tuple(map(float, value["logs"]))) for value in given]
        logs = [one.logs for one in measured if one]
        untrained, latest, best = measured
        comparable = len({len(one) for one in logs}) <= 1 and all(len(one) > 1 for one in logs)
        finite = all(abs(log) < LARGEST for one in logs for log in one)
        if not (comparable and finite and (vectors or not best)):
            raise ValueError("validation losses that do not belong together")
        return cls(untrained, latest, best, vectors, int(values["since"]))
