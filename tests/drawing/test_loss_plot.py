"""The drawing of a run's loss."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ti_train.drawing.loss_plot import loss_plot
from ti_train.events import Step


def step(number: int, loss: float | None = 0.5, validation_loss: float | None = None) -> Step:
    return Step(number, loss, validation_loss, 0.005, 0.4, 0.9, number / 10)


NAN = math.nan
LINE = [step(i, 0.5 - i / 100, 0.4 - i / 100 if i % 5 == 0 else None) for i in range(21)]


def drawn(steps, title: str = "", kept=None) -> np.ndarray:
    return np.asarray(loss_plot(steps, title, kept)).astype(int)


@pytest.mark.parametrize(
    "steps",
    [
        LINE,
        [step(0, None, 0.3)],
        [step(1, 0.3)],
        [step(1, NAN, NAN)],
        [step(0, None, 0.3), step(1, NAN), step(2, 0.2, 0.1)],
        [step(1, 1e9, 1e9)],
        [step(1, math.inf)],
        [],
    ],
    ids=["a run", "untrained", "one step", "NaN", "a NaN within", "huge", "infinite", "none"],
)
def test_a_drawing_comes_out_whatever_the_run(steps):
    pixels = drawn(steps)
    assert pixels.shape == (420, 900, 3)
    assert (pixels < 200).any(-1).sum() > 300, "axes and their numbers, at least"


def test_the_noise_free_loss_is_a_dark_line_that_falls_as_it_does():
    blue = np.abs(drawn(LINE) - (0x1B, 0x4F, 0x8F)).sum(-1) < 30
    rows, columns = np.nonzero(blue)
    assert columns.max() - columns.min() > 700
    assert rows[columns < 200].mean() < rows[columns > 700].mean() - 50


def test_the_band_is_as_wide_as_the_error():
    steps = [step(0, 0.5, 0.4), replace(step(10, 0.5, 0.4), validation_error=0.1)]
    rows, columns = np.nonzero(np.abs(drawn(steps) - (0xE4, 0xEC, 0xF6)).sum(-1) < 8)
    widths = {side: np.ptp(rows[columns // 100 == side]) for side in (1, 7)}
    assert widths[7] > 4 * widths[1]


def test_the_step_that_is_kept_has_a_ring_whether_or_not_it_is_the_lowest():
    steps = [step(i, None, value) for i, value in enumerate((0.1, 0.5, 0.1))]
    rows, columns = np.nonzero(np.abs(drawn(steps, kept=(1, 0.1)) - (0xC0, 0x30, 0x28)).sum(-1) < 60)
    assert columns.mean() == pytest.approx((78 + 880) / 2, abs=3)
    assert rows.mean() > 330


@pytest.mark.parametrize("title", ["my-cat", "Schlüssel", "猫"])
def test_a_title_in_any_script(title):
    assert (drawn(LINE, title)[:40] < 200).any(-1).sum() > (drawn(LINE)[:40] < 200).any(-1).sum()
