"""What of a prompt is not read as it was meant: text beyond the encoder's limit, and marks of no embedding."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import cache

from .host import Host, Prompt, Slot
from .names import IN_PROMPTS
from .prompts import PLACEHOLDER, text_of
from .text import unicode_forms

MARK = re.compile(r"<[^\s<>:](?:[^<>:\n]*[^\s<>:])?>")  # with a colon it is a WebUI's own syntax, such as <lora:x:1>
STAR = re.compile(r"(?<![\w*])\*(?![\w*])")
WORD = re.compile(r"[^\W\u2e80-\U0003ffff]+|\S")  # Chinese and Japanese are written without spaces
NOTHING = r"(?!)"  # matches nowhere
SHOWN = 60  # characters of the text that is cut off


class TokenCounter:
    """Counts the tokens of prompts with the host's own tokenizers.

    limit: tokens of a prompt that the host encodes; None if it encodes any number.
    """

    def __init__(self, host: Host, lengths: Mapping[str, int]) -> None:
        """lengths: embedding -> number of its vectors."""
        vocabularies = [host.vocabulary(encoder) for encoder in host.widths]
        self.limit = min((v.limit for v in vocabularies if v.limit is not None), default=None)
        self._counts = [cache(_counting(vocabulary.tokenize)) for vocabulary in vocabularies]
        self._lengths = lengths

    def count(self, prompt: Prompt) -> int:
        """The most tokens that any of the encoders reads it as."""
        slots = sum(self._lengths[piece.name] for piece in prompt if isinstance(piece, Slot))
        return slots + max(sum(count(p) for p in prompt if isinstance(p, str)) for count in self._counts)

    def cut_off(self, prompt: Prompt) -> str:
        """The text beyond the limit, or ""."""
        if self.limit is None or self.count(prompt) <= self.limit:
            return ""
        kept = next(i for i in range(len(prompt)) if self.count(prompt[: i + 1]) > self.limit)
        before, piece = prompt[:kept], prompt[kept]
        if isinstance(piece, Slot):
            return text_of(prompt[kept:])
        ends = [match.end() for match in WORD.finditer(piece)]
        words = bisect_right(ends, self.limit, key=lambda end: self.count((*before, piece[:end])))
        return piece[ends[words - 1] if words else 0 :].strip() + text_of(prompt[kept + 1 :])

    def remarks(self, prompt: Prompt, which: str) -> list[str]:
        """Says what is cut off. which: the prompt, at the beginning of a sentence."""
        cut = self.cut_off(prompt)
        if not cut:
            return []
        shown = cut if len(cut) <= SHOWN else f"{cut[:SHOWN]}..."
        return [
            f"{which} has {self.count(prompt)} tokens, and the text encoder reads {self.limit}: '{shown}' is cut off. "
            "Shorten it."
        ]


def _counting(tokenize: Callable[[str], list[int]]) -> Callable[[str], int]:
    return lambda text: len(tokenize(text))


def whole_words(placeholders: Iterable[str]) -> re.Pattern[str]:
    """Finds placeholders in any Unicode form, the longest first: `cat` not in `cats`, nor in `embedding:cat`."""
    forms = {written for placeholder in placeholders for written in unicode_forms(placeholder)}
    return re.compile("|".join(map(_whole_word, sorted(forms, key=len, reverse=True))) or NOTHING)


def _whole_word(placeholder: str) -> str:
    before = rf"(?<![\w-])(?<!{IN_PROMPTS})" if re.match(r"\w", placeholder) else ""
    after = r"(?![\w-])" if re.search(r"\w$", placeholder) else ""
    return before + re.escape(placeholder) + after


def unknown_marks(prompt: Prompt, marks: Collection[str], which: str, known: Collection[str] = ()) -> list[str]:
    """Says which marks stayed text. marks: those of the embeddings; known: what the host itself replaces."""
    text = " ".join(piece for piece in prompt if isinstance(piece, str))
    text = whole_words(known).sub(IN_PROMPTS, text)
    remarks = [
        f"{mark} in {which} is read as plain text: there is no such embedding. {_instead(mark, marks)}"
        for mark in dict.fromkeys(MARK.findall(text))
    ]
    if STAR.search(text):
        instead = f"Write {' or '.join(marks)} in {which}." if marks else "No embedding is loaded."
        several = f", since {len(marks)} embeddings are loaded" if len(marks) > 1 else ""
        remarks.append(f"{PLACEHOLDER} is read as plain text{several}. {instead}")
    return remarks


def _instead(mark: str, marks: Collection[str]) -> str:
    written = {loaded.strip("<>"): loaded for loaded in marks}
    near = get_close_matches(mark.strip("<>"), written, 1)
    if near:
        return f"Did you mean {written[near[0]]}?"
    return f"Loaded: {' or '.join(marks)}." if marks else "No embedding is loaded."
