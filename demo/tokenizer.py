"""Makes a small CLIP tokenizer in whose vocabulary every word of the grammar is one token."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from ti_train.hosts.spelling import BYTES

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 32  # captions have at most 19 tokens; more padding only dilutes the attention to them


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges the most frequent pair of neighbours again and again until each word is one piece."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(p for word in pieces for p in pairwise(word)):
        first, second = best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for word in pieces:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == (first, second):
                    word[i : i + 2] = [first + second]
                i += 1
    return merges


def build(folder: Path, words: list[str]) -> CLIPTokenizer:
    """Writes the tokenizer's files into a folder and loads them."""
    merges = learn_merges(words)
    entries = [*BYTES, *(letter + "</w>" for letter in BYTES), *(a + b for a, b in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(entries))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer", "bos_token": START, "eos_token": END, "unk_token": END,
        "pad_token": END, "model_max_length": CONTEXT, "errors": "replace", "do_lower_case": True,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    return CLIPTokenizer.from_pretrained(folder)
