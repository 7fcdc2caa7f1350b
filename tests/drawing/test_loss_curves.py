"""The points that every chart of a loss draws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ti_train.drawing.loss_curves import POINTS, LossCurves
from ti_train.events import Step


def step(number: int, loss: float | None = None, validation_loss: float | None = None) -> Step:
    return Step(number, loss, validation_loss, 0.005, 0.4, 0.9, number / 10)


def test_the_steps_loss_is_smoothed_from_its_first_value_on():
    curves = LossCurves([step(1, 1.0), step(2, 0.0), step(3, 0.0)])
    assert list(curves.loss) == [(1, 1.0), (2, 0.9), (3, pytest.approx(0.81))]


def test_the_noise_free_loss_is_left_as_it_is():
    curves = LossCurves([step(0, None, 0.5), step(1, 0.3), step(2, 0.3, 0.4)])
    assert list(curves.validation_losses) == [(0, 0.5), (2, 0.4)]


def test_its_band_is_two_standard_errors_of_its_logarithm_on_either_side():
    steps = [step(0, None, 0.5), step(1, 0.3), replace(step(2, 0.3, 0.4), validation_error=0.1)]
    assert list(LossCurves(steps).band) == [
        (0, 0.5, 0.5),
        (2, pytest.approx(0.4 * math.exp(-0.2)), pytest.approx(0.4 * math.exp(0.2))),
    ]


def test_a_loss_that_is_no_number_is_left_out():
    odd = [step(1, math.nan, math.nan), step(2, math.inf, -math.inf)]
    curves = LossCurves([*odd, step(3, 0.5, 0.4), *odd])
    assert (list(curves.loss), list(curves.validation_losses)) == ([(3, 0.5)], [(3, 0.4)])


def test_a_long_run_has_few_points_and_its_last_one_is_the_last_step():
    curves = LossCurves(step(number, 0.5, 0.4) for number in range(1, 5001))
    for points in (list(curves.loss), list(curves.validation_losses)):
        assert POINTS / 2 < len(points) <= POINTS + 1
        assert points[-1][0] == 5000
