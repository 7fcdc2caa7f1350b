"""The table and the files of an evaluation."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

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
        'initial text "cat"             0.500            0.300',
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
        "label": "my-cat", "kind": "word", "image_similarity": 0.75, "text_similarity": 0.25,
        "edits": WORD.edits, "more": {},
    }  # fmt: skip
    assert Image.open(files[2]).size == (900, 620)
