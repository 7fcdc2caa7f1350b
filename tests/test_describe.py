from __future__ import annotations

from ti_train.describe import describe
from ti_train.drawing.card import card
from ti_train.embedding import Embedding


def test_a_word_is_told_by_its_neighbours(host):
    vocabulary = host.vocabulary("tiny")
    vectors = {"tiny": vocabulary.rows("cat")}
    text = describe(Embedding("my-cat", vectors, {"step": "7"}), vectors, {"tiny": vocabulary})
    assert "my-cat: 1 vector(s) of width 16" in text
    assert "nearest words: cat 1.00" in text
    assert "step: 7" in text


def test_a_card_holds_every_line():
    assert card("one\ntwo").height < card("one\ntwo\nthree " + "long " * 40).height


def test_a_card_may_say_a_word_of_any_script():
    """The font of before Pillow 10.1 has Latin letters only."""
    assert card("ねこ: 1 vector(s)\nnearest words: 🐱 0.50").getextrema() == ((0, 255),) * 3
