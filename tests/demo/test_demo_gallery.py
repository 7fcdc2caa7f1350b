"""The sheet of what the shipped words can do."""

from __future__ import annotations

import re

import pytest
import torch
from tiny_host import ENCODER, WIDTH, TinyHost

pytest.importorskip("diffusers")

from demo.concepts import SHIPPED
from demo.gallery import ACROSS, HERE, LINES, gallery
from demo.grammar import vocabulary


def test_every_concept_that_comes_along_has_its_word():
    words, concepts = (sorted(path.stem for path in (HERE / kind).iterdir()) for kind in ("words", "concepts"))
    assert words == concepts == sorted(SHIPPED)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.prompt)
def test_every_row_is_full_and_in_the_models_own_language(line):
    assert len(line.prompts) == ACROSS
    for prompt in line.prompts:
        learnt = re.findall(r"<(.+?)>", prompt)
        assert set(learnt) <= set(SHIPPED)
        assert set(re.sub(r"<.+?>", "", prompt).split()) <= {*vocabulary(), "a"}


def test_every_shipped_word_is_shown():
    shown = " ".join(prompt for line in LINES for prompt in line.prompts)
    assert all(f"<{name}>" in shown for name in SHIPPED)


def test_the_sheet_has_a_cell_for_every_picture():
    words = {name: {ENCODER: torch.full((1, WIDTH), 0.1 * i)} for i, name in enumerate(SHIPPED)}
    sheet = gallery(TinyHost(), words, HERE / "concepts")
    assert sheet.width > ACROSS * 112
    assert sheet.height > (len(LINES) + 1) * 112


def test_the_sheet_of_the_readme_loads_quickly():
    assert (HERE / "gallery.png").stat().st_size <= 300_000
