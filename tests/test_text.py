"""Text: encodings, and names that are the same."""

from __future__ import annotations

import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_train.errors import UserError
from ti_train.events import Warning
from ti_train.text import (
    Remarks,
    csv_rows,
    decode,
    json_value,
    listed,
    name_key,
    one_line,
    printable,
    unicode_text,
    with_rest,
)

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


@pytest.mark.parametrize(
    "data", [b"a\0b", b"red\0toy ", "a\0b".encode("utf-16"), b"\xff\xfea", "a猫".encode("utf-16-le")]
)
def test_zero_bytes_within_a_text_are_no_text(data):
    with pytest.raises(UnicodeDecodeError):
        decode(data)


@given(st.text())
def test_a_name_is_the_same_in_every_unicode_form_and_letter_case(name):
    for form in ("NFC", "NFD"):
        assert name_key(unicodedata.normalize(form, name)) == name_key(name)
    assert name_key("CAF\u00c9.png") == name_key("cafe\u0301.PNG") != name_key("cafe.png")


def test_many_things_are_named_in_part():
    assert listed([*"abcde"]) == "a, b, c, d, e"
    assert listed([*"abcdefg"]) == "a, b, c, d, e and 2 more"
    assert with_rest([*"ab"], 2) == ["a", "b"]
    assert with_rest([*"abc"], 2) == ["a", "b", "... and 1 more."]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_is_separated_by_what_separates_its_names(mark):
    rows = csv_rows(f'name{mark}init{mark}more\ncat{mark}"a, b; c"{mark}\n')
    assert [*rows] == [{"name": "cat", "init": "a, b; c", "more": ""}]


def test_one_line_has_nothing_that_ends_a_text_or_tells_its_encoding():
    assert one_line("\ufeffa\0b\r\n  c\ud83d ") == "a b c\ufffd"


# --- What reaches a terminal or a page ------------------------------------------

ACTING = "\x1b[2J\x07\r\n\x7f\x9b\u202e\u2066\u200f\u2028\ufeff\udcff"
SHOWN = r"\x1b[2J\x07\r\n\x7f\x9b\u202e\u2066\u200f\u2028\ufeff\udcff"


@pytest.mark.parametrize(
    "text", ["猫 naïve", "e\u0301", "नमस्ते", "\u0645\u06cc\u200c\u062e", "👩\u200d🚀", "全\u3000角", "a\u00a0b", "\\x1b"]
)
def test_what_people_read_stays(text):
    assert printable(text) == text


def test_what_acts_on_a_terminal_or_turns_the_text_is_shown_as_an_escape():
    assert printable(ACTING) == SHOWN


@given(st.text(st.characters(blacklist_categories=())))
def test_any_text_can_be_shown(text):
    shown = printable(text)
    assert printable(shown) == shown
    assert shown.encode().decode() == shown == "".join(shown.splitlines())


def test_errors_warnings_and_remarks_are_printable_however_they_are_made():
    remarks = Remarks([ACTING])
    remarks.append(ACTING)
    remarks.extend([ACTING])
    remarks += [ACTING]
    assert remarks == [SHOWN] * 4
    assert Warning(ACTING).message == SHOWN
    assert str(UserError(ACTING)) == SHOWN


def test_the_lines_of_an_error_stay_lines_also_in_another_process():
    error = UserError("Two are wrong:", ACTING)
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == f"Two are wrong:\n{SHOWN}"


def test_json_has_a_mark_in_place_of_half_a_character():
    assert json_value(b'{"a": ["\\ud83d", "\\ud83d\\ude00", 1.5]}') == {"a": ["\ufffd", "\U0001f600", 1.5]}


def test_an_old_file_that_ends_in_zero_characters_is_read_without_them():
    assert decode("café".encode("cp1252") + b"\0\0") == ("café", True)
