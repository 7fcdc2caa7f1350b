"""What is derived from the table of options is as it derives it today."""

from __future__ import annotations

import pytest

from docs.generate import ROOT, generated


@pytest.mark.parametrize(
    "file", [file.relative_to(ROOT) for file in generated()], ids=lambda file: file.as_posix().replace("/", "-")
)
def test_generated_texts_are_up_to_date(file):
    there = (ROOT / file).read_text(encoding="utf-8")
    assert there == generated()[ROOT / file], f"{file} is out of date: run python -m docs.generate"
