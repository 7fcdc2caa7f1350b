"""Pieces of a byte-level vocabulary, read; and names made of letters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_train.hosts.spelling import BYTES, letters, readable

LETTERS = {byte: letter for letter, byte in BYTES.items()}


@pytest.mark.parametrize(
    ("piece", "read"),
    [
        ("cat</w>", "cat"),
        ("pho", "pho"),
        ("ðŁĲ±</w>", "🐱"),
        ("ðŁ", "ðŁ"),  # half a letter
        ("▁cat", "▁cat"),  # another kind of vocabulary
    ],
)
def test_a_piece_is_read(piece, read):
    assert readable(piece) == read


@given(st.text())
def test_any_text_in_bytes_comes_back(text):
    assert len(LETTERS) == 256
    assert readable("".join(LETTERS[byte] for byte in text.encode()) + "</w>") == text


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_letters_differ(one, other):
    assert (letters(one) == letters(other)) == (one == other)
    assert letters(one).isalpha()
