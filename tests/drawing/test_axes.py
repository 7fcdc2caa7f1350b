"""Axes that two kinds of charts share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_train.drawing.axes import Axes, evenly, round_numbers, with_margin


def test_values_lie_in_the_box_upwards():
    axes = Axes(across=(0, 10), up=(-1, 1), box=(50, 20, 250, 120))
    assert axes.place(0, -1) == (50, 120)
    assert axes.place(10, 1) == (250, 20)
    assert axes.place(5, 0) == (150, 70)


def test_marks_are_evenly_spread_from_end_to_end():
    assert evenly((0, 120), 5) == [0, 30, 60, 90, 120]


@given(st.lists(st.floats(-1, 1), min_size=1))
def test_a_range_holds_every_value_with_room(values):
    low, high = with_margin(values, 0.15, 0.01)
    assert low < min(values) <= max(values) < high


def test_a_margin_is_a_part_of_the_range_or_the_least_one():
    assert with_margin([0, 2], 0.1, 0.01) == pytest.approx((-0.2, 2.2))
    assert with_margin([0.5], 0.1, 0.01) == pytest.approx((0.49, 0.51))


@pytest.mark.parametrize(
    ("highest", "marks"),
    [
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (120, [0, 20, 40, 60, 80, 100, 120]),
        (333, [0, 100, 200, 300]),
        (5000, [0, 1000, 2000, 3000, 4000, 5000]),
    ],
)
def test_steps_are_marked_at_round_numbers(highest, marks):
    assert round_numbers((0, highest)) == marks
