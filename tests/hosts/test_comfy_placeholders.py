"""The parts of the ComfyUI adapter that need no ComfyUI: placeholders in prompts."""

from __future__ import annotations

import pytest

from ti_train.hosts.comfy.placeholders import replace_placeholders


@pytest.mark.parametrize(
    ("placeholder", "text", "expected"),
    [
        ("*", "a photo of a *, at night", "a photo of a  embedding:it , at night"),
        ("<cat>", "(<cat>:1.2)", "( embedding:it :1.2)"),
        ("my-cat", "my-cats, my-cat-like, oh-my-cat", "my-cats, my-cat-like, oh-my-cat"),
        ("my-cat", "My my-cat.", "My  embedding:it ."),
        ("cat", "embedding:cat and cat", "embedding:cat and  embedding:it "),
        ("a.c", "abc", "abc"),
    ],
)
def test_only_whole_words_are_replaced(placeholder, text, expected):
    assert replace_placeholders(text, {placeholder: "it"}) == expected


def test_the_longest_placeholder_wins():
    names = {"*": "star", "<a*>": "both"}
    assert replace_placeholders("<a*> *", names) == " embedding:both   embedding:star "


def test_no_placeholder_changes_nothing():
    assert replace_placeholders("a cat", {}) == "a cat"
