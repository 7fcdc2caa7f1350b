"""The loss curves of a run for all charts, with a limited number of points."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..events import Step
from .thinned import Thinned

POINTS = 400  # per curve
SMOOTHING = 0.9  # weight of the previous mean

ERRORS = 2  # standard errors on either side of a validation loss

Point = tuple[int, float]  # step and value
Band = tuple[int, float, float]  # step, lowest and highest value


class LossCurves:
    """The training loss as an exponential moving average; the validation loss, and a band around it: finite values.

    The band is that of the error of its change since step 0; of its logarithm, so the band is wider above.
    """

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.loss, self.validation_losses = Thinned[Point](POINTS), Thinned[Point](POINTS)
        self.band = Thinned[Band](POINTS)
        self._mean: float | None = None
        for step in steps:
            self.add(step)

    def add(self, step: Step) -> None:
        if step.loss is not None and math.isfinite(step.loss):
            before = step.loss if self._mean is None else self._mean
            self._mean = SMOOTHING * before + (1 - SMOOTHING) * step.loss
            self.loss.add((step.step, self._mean))
        if step.validation_loss is not None and math.isfinite(step.validation_loss):
            self.validation_losses.add((step.step, step.validation_loss))
            spread = math.exp(ERRORS * (step.validation_error or 0.0))
            self.band.add((step.step, step.validation_loss / spread, step.validation_loss * spread))
