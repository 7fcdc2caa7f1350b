"""The table and the plot of an evaluation."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from ti_train.drawing.colours import INK, MARK
from ti_train.drawing.score_plot import free_place, plot, with_margin
from ti_train.evaluation.scores import Score, table, write_scores

PICTURES = Score("training pictures", "training pictures", 0.9, {"on the moon": 0.1, "as an oil painting": 0.2})
INITIAL = Score("cat", "initial word", 0.5, {"on the moon": 0.4, "as an oil painting": 0.2})
WORD = Score("my-cat", "word", 0.75, {"on the moon": 0.25, "as an oil painting": 0.25})


def test_the_text_similarity_is_the_mean_over_the_edits():
    assert INITIAL.text_similarity == pytest.approx(0.3)


def test_the_table_has_a_row_each():
    assert table([PICTURES, INITIAL, WORD]).splitlines() == [
        "                    image similarity  text similarity",
        "training pictures              0.900            0.150",
        'initial word "cat"             0.500            0.300',
        "my-cat                         0.750            0.250",
    ]


def test_the_files_hold_every_figure_and_how_it_was_measured(tmp_path):
    files = write_scores([PICTURES, INITIAL, WORD], {"judge": "CLIP", "steps": 50}, tmp_path)
    assert [file.name for file in files] == ["evaluation.csv", "evaluation.json", "evaluation.png"]
    with files[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "label": "cat", "kind": "initial word", "image_similarity": "0.500000", "text_similarity": "0.300000",
        "on the moon": "0.400000", "as an oil painting": "0.200000",
    }  # fmt: skip
    whole = json.loads(files[1].read_text(encoding="utf-8"))
    assert whole["settings"] == {"judge": "CLIP", "steps": 50}
    assert whole["scores"][2] == {
        "label": "my-cat", "kind": "word", "image_similarity": 0.75, "text_similarity": 0.25, "edits": WORD.edits
    }  # fmt: skip
    assert Image.open(files[2]).size == (900, 620)


def middle_of(picture: Image.Image, colour: str) -> tuple[float, float]:
    rows, columns = np.nonzero((np.asarray(picture) == ImageColor.getrgb(colour)).all(-1))
    return columns.mean(), rows.mean()


def test_a_word_is_drawn_to_the_right_for_its_text_and_higher_for_its_image_similarity():
    picture = plot([INITIAL, WORD], "")
    (word_x, word_y), (initial_x, initial_y) = middle_of(picture, INK), middle_of(picture, MARK)
    assert word_x < initial_x
    assert word_y < initial_y, "rows count downwards"


@pytest.mark.parametrize("scores", [[WORD], [WORD, WORD], [Score("мой-кот", "word", 1.0, {"": 0.0})]])
def test_one_equal_and_foreign_words_can_be_drawn(scores):
    middle_of(plot(scores, "мой-кот"), INK)


@given(st.lists(st.floats(-1, 1), min_size=1))
def test_the_axes_hold_every_value_with_room(values):
    low, high = with_margin(values)
    assert low < min(values) <= max(values) < high


boxes = st.builds(lambda x, y, w: (x, y, x + w, y + 18.0), st.floats(80, 700), st.floats(200, 400), st.floats(10, 150))


@given(st.lists(boxes, max_size=8), st.floats(40, 200))
def test_labels_do_not_cover_each_other(taken, length):
    mark = (400.0, 300.0, 414.0, 314.0)
    left, top, right, bottom = free_place(mark, length, (78.0, 876.0), taken)
    assert right - left == pytest.approx(length)
    assert not any(left < b[2] and b[0] < right and top < b[3] and b[1] < bottom for b in taken)
