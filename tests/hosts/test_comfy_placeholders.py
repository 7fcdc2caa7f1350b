"""The parts of the ComfyUI adapter that need no ComfyUI: placeholders in prompts."""

from __future__ import annotations

import pytest

from ti_train.hosts.comfy.placeholders import PRIVATE, remarks_on, replace_placeholders, spaced


@pytest.mark.parametrize(
    ("placeholder", "text", "expected"),
    [
        ("*", "a photo of a *, at night", "a photo of a embedding:it , at night"),
        ("<cat>", "(<cat>:1.2)", "(embedding:it :1.2)"),
        ("my-cat", "my-cats, my-cat-like, oh-my-cat", "my-cats, my-cat-like, oh-my-cat"),
        ("my-cat", "My my-cat.", "My embedding:it ."),
        ("cat", "embedding:cat and cat", "embedding:cat and embedding:it "),
        ("a.c", "abc", "abc"),
    ],
)
def test_only_whole_words_are_replaced(placeholder, text, expected):
    assert replace_placeholders(text, {placeholder: "it"}) == expected


def test_the_longest_placeholder_wins():
    names = {"*": "star", "<a*>": "both"}
    assert replace_placeholders("<a*> *", names) == "embedding:both  embedding:star "


IT = f"embedding:{PRIVATE}a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{IT} in the rain", f"{IT} in the rain"),
        (f"user\n{IT} in the rain", f"user\n{IT} in the rain"),
        (f"a photo of a {IT} ", f"a photo of a {IT} "),
        (f"red,{IT} ", f"red, {IT} "),
        (f"({IT} :1.2)", f"({IT} :1.2)"),
        (f"a frog :({IT} ", f"a frog :( {IT} "),
        (f"\\({IT} \\)", f"\\( {IT} \\)"),
    ],
)
def test_a_space_only_where_the_host_needs_one(text, expected):
    assert spaced(text, emphasis=True) == expected


def test_brackets_are_text_where_the_host_reads_no_emphasis():
    assert spaced(f"({IT} :1.2)", emphasis=False) == f"( {IT} :1.2)"


@pytest.mark.parametrize("text", ["a <cafe\u0301>", "a <caf\u00e9>"])
@pytest.mark.parametrize("placeholder", ["<cafe\u0301>", "<caf\u00e9>"])
def test_a_placeholder_is_the_same_in_every_unicode_form(placeholder, text):
    assert replace_placeholders(text, {placeholder: "it"}) == "a embedding:it "
    assert remarks_on(text, {placeholder: "it"}) == []


def test_a_mark_of_no_embedding_in_a_users_prompt_is_told():
    (remark,) = remarks_on("a <teal-hart>", {"<teal-heart>": "it", "*": "it"})
    assert remark.endswith("Did you mean <teal-heart>?")
    assert remarks_on("a *", {"<a>": "x", "<b>": "y"}) == [
        "* is read as plain text, since 2 embeddings are loaded. Write <a> or <b> in the prompt."
    ]
    assert remarks_on("a <teal-hart>", {"\x02*\x03": "it"}) == [], "a training run's own prompts"


def test_a_placeholder_without_brackets_is_used_within_brackets_too():
    assert "embedding:it" in replace_placeholders("a <my-cat>", {"my-cat": "it"})
    assert remarks_on("a <my-cat>", {"my-cat": "it"}) == []
    (remark,) = remarks_on("a <my-cot>", {"my-cat": "it"})
    assert remark.endswith("Did you mean my-cat?")
    assert remarks_on("a *", {"my-cat": "it"}) == ["* is read as plain text. Write my-cat in the prompt."]


def test_no_placeholder_changes_nothing():
    assert replace_placeholders("a cat", {}) == "a cat"
