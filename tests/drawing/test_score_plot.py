"""The plot of likeness against editability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from ti_train.drawing.colours import INK, MARK
from ti_train.drawing.score_plot import Point, free_place, score_plot

INITIAL = Point('initial word "cat"', across=0.3, up=0.5, hollow=True)
WORD = Point("my-cat", across=0.25, up=0.75, hollow=False)


def middle_of(picture: Image.Image, colour: str) -> tuple[float, float]:
    rows, columns = np.nonzero((np.asarray(picture) == ImageColor.getrgb(colour)).all(-1))
    return columns.mean(), rows.mean()


def test_a_word_is_drawn_to_the_right_for_its_text_and_higher_for_its_image_similarity():
    picture = score_plot([INITIAL, WORD], "")
    (word_x, word_y), (initial_x, initial_y) = middle_of(picture, INK), middle_of(picture, MARK)
    assert word_x < initial_x
    assert word_y < initial_y, "rows count downwards"


@pytest.mark.parametrize("points", [[WORD], [WORD, WORD], [Point("мой-кот", 0.0, 1.0, hollow=False)]])
def test_one_equal_and_foreign_words_can_be_drawn(points):
    middle_of(score_plot(points, "мой-кот"), INK)


def test_below_the_plot_stands_what_is_across_and_above_it_what_is_up():
    plain, across, up = (np.asarray(score_plot([WORD], "", axes)) for axes in (("", ""), ("a", ""), ("", "b")))
    below, above = (np.nonzero((named != plain).any((1, 2)))[0] for named in (across, up))
    _, row = middle_of(score_plot([WORD], ""), INK)
    assert above.max() < row < below.min()


boxes = st.builds(lambda x, y, w: (x, y, x + w, y + 18.0), st.floats(80, 700), st.floats(200, 400), st.floats(10, 150))


@given(st.lists(boxes, max_size=8), st.floats(40, 200))
def test_labels_do_not_cover_each_other(taken, length):
    mark = (400.0, 300.0, 414.0, 314.0)
    left, top, right, bottom = free_place(mark, length, (78.0, 876.0), taken)
    assert right - left == pytest.approx(length)
    assert not any(left < b[2] and b[0] < right and top < b[3] and b[1] < bottom for b in taken)
