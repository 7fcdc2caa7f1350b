"""The losses of a run as every chart draws them: few points, however long it is."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..events import Step
from .thinned import Thinned

POINTS = 400  # of a curve
SMOOTHING = 0.9  # weight of what was before; without it the noise would hide the curve

Point = tuple[int, float]  # step and value


class LossCurves:
    """The steps' loss as an exponential mean, the noise-free loss, and its best measure; all of finite values only."""

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.loss, self.validation_losses = Thinned[Point](POINTS), Thinned[Point](POINTS)
        self.best: Point | None = None  # of a word that has learnt something: step 0 has not
        self._mean: float | None = None
        for step in steps:
            self.add(step)

    def add(self, step: Step) -> None:
        if step.loss is not None and math.isfinite(step.loss):
            before = step.loss if self._mean is None else self._mean
            self._mean = SMOOTHING * before + (1 - SMOOTHING) * step.loss
            self.loss.add((step.step, self._mean))
        if step.validation_loss is not None and math.isfinite(step.validation_loss):
            measured = (step.step, step.validation_loss)
            self.validation_losses.add(measured)
            if step.step and (self.best is None or step.validation_loss < self.best[1]):
                self.best = measured
