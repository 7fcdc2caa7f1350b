"""What of a prompt is not read: told in the encoder's own tokens, with the text that is cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_host import CONTEXT, TinyHost

from ti_train.host import Prompt, Slot, Vocabulary
from ti_train.prompt_check import SHOWN, TokenCounter, unknown_marks
from ti_train.prompts import parse

LIMIT = CONTEXT - 2
TOY = Slot("toy")


class Chunked(TinyHost):
    """A host that encodes long prompts in chunks, as ComfyUI and the WebUIs do."""

    def vocabulary(self, encoder: str) -> Vocabulary:
        return replace(super().vocabulary(encoder), limit=None)


class Letters(TinyHost):
    """A tokenizer of single letters: Chinese has no spaces between words."""

    def tokenize(self, text: str) -> list[int]:
        return [0] * len(text.replace(" ", ""))


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        (("red cat " * 9,), ""),
        (("red cat " * 10,), "red cat"),
        (("red cat " * 8, TOY, " with a dog"), "with a dog"),  # its two vectors are the last that fit
        (("red cat " * 9, TOY), "<toy>"),
        (("a ", TOY, " " + "red cat " * 8), "cat"),
    ],
)
def test_text_beyond_the_limit_is_told_in_tokens(prompt: Prompt, cut: str):
    counter = TokenCounter(TinyHost(), {"toy": 2})
    assert counter.cut_off(prompt) == cut
    told = f"The prompt has {counter.count(prompt)} tokens, and the text encoder reads {LIMIT}: '{cut}' is cut off. "
    assert counter.remarks(prompt, "The prompt") == ([told + "Shorten it."] if cut else [])


def test_chinese_is_counted_in_tokens_and_cut_between_signs():
    counter = TokenCounter(Letters(), {})
    assert counter.cut_off(("一只红色的猫" * 3,)) == ""
    assert counter.cut_off(("一只红色的猫" * 3 + "坐在沙发上",)) == "坐在沙发上"


@pytest.mark.parametrize(("more", "dots"), [("", ""), ("鸟", "...")])
def test_of_a_long_text_that_is_cut_off_the_beginning_is_shown(more, dots):
    read, cut = "一" * LIMIT, "猫" * SHOWN
    (remark,) = TokenCounter(Letters(), {}).remarks((read + cut + more,), "The prompt")
    assert f"'{cut}{dots}' is cut off" in remark


def test_a_host_that_encodes_in_chunks_cuts_nothing_off():
    assert TokenCounter(Chunked(), {}).remarks(("red cat " * 99,), "The prompt") == []


@pytest.mark.parametrize(
    ("text", "words", "remark"),
    [
        ("a <teal-heart>", ["teal-heart"], None),
        ("a <lora:x:1> at 3 < 4 and 5 > 2, <3", ["teal-heart"], None),
        ("a <teal-hart>", ["teal-heart", "dog"], "<teal-hart> in the prompt is read as plain text: there is no such "
                                                 "embedding. Did you mean <teal-heart>?"),
        ("a <zebra>", ["dog"], "Loaded: <dog>."),
        ("a <zebra>", [], "No embedding is loaded."),
        ("a * here", ["cat", "dog"], "* is read as plain text, since 2 embeddings are loaded. Write <cat> or <dog> in "
                                     "the prompt."),
        ("a * here", ["cat"], None),
        ("2*3 **bold**", ["cat", "dog"], None),
    ],
)  # fmt: skip
def test_a_mark_of_no_embedding_is_told_with_the_nearest(text, words, remark):
    found = unknown_marks(parse(text, words), [f"<{word}>" for word in words], "the prompt")
    assert [remark in told for told in found] == ([True] if remark else [])


def test_what_the_host_itself_replaces_is_known():
    assert unknown_marks(("a <dog> and *",), ["<cat>", "<toy>"], "the prompt", known=("<dog>", "*")) == []


@pytest.mark.parametrize("text", ["a <my-cat>", "a (my-cat:1.2)", "<a my-cat here>", "my-cat"])
def test_so_is_a_mark_within_which_it_replaces_something(text):
    assert unknown_marks((text,), ["<dog>"], "the prompt", known=["my-cat"]) == []
    assert unknown_marks(("a <my-cats>",), ["my-cat"], "the prompt", known=["my-cat"]) == [
        "<my-cats> in the prompt is read as plain text: there is no such embedding. Did you mean my-cat?"
    ]
