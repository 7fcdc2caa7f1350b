"""Text: encodings, and names that are the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_train.text import decode, listed, name_key, unicode_text, with_rest

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"))), st.sampled_from(ENCODINGS))
def test_any_text_survives_unicode(text, encoding):
    assert decode(text.encode(encoding)) == (text.removeprefix("\ufeff") if encoding == "utf-8" else text, False)


@given(
    st.text(st.sampled_from("abc, -"), min_size=1),
    st.sampled_from(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]),
)
def test_english_needs_no_byte_order_mark(text, encoding):
    assert unicode_text(text.encode(encoding)) == text


@pytest.mark.parametrize("data", [b"a\0b", b"red\0toy ", "a\0b".encode("utf-16"), b"\xff\xfea"])
def test_zero_bytes_within_a_text_are_no_text(data):
    with pytest.raises(UnicodeDecodeError):
        decode(data)


@given(st.text())
def test_a_name_is_the_same_in_every_unicode_form_and_letter_case(name):
    for form in ("NFC", "NFD"):
        assert name_key(unicodedata.normalize(form, name)) == name_key(name)
    assert name_key("CAF\u00c9.png") == name_key("cafe\u0301.PNG") != name_key("cafe.png")


def test_many_things_are_named_in_part():
    assert listed(["a", "b"]) == "a, b"
    assert listed([*"abcdefg"]) == "a, b, c, d, e and 2 more"
    assert with_rest([*"abc"], 2) == ["a", "b", "... and 1 more."]
