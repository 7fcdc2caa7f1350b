"""Captions: found, decoded, and told about where they are missing."""

from __future__ import annotations

import pytest
from PIL import Image

from ti_train.dataset import find_pictures, read_pictures


def test_captions_are_one_line_of_the_text_file_beside_a_picture(pictures, tmp_path):
    warnings: list[str] = []
    read = list(read_pictures(find_pictures(pictures), 32, warnings, captions=True))
    assert [(p.name, p.caption) for p in read] == [("blue.png", "blue dog"), ("green.png", ""), ("red.png", "red toy")]
    assert warnings == ["green.png has no caption (green.txt is missing): the template is used without one."]


@pytest.mark.parametrize(
    ("content", "caption"),
    [(b"a red\n  toy\n", "a red toy"), ("\ufeffrot".encode(), "rot"), ("猫".encode(), "猫"), (b"", "")],
)
def test_a_captions_bytes(tmp_path, content, caption):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    (picture,) = read_pictures([tmp_path / "a.png"], 32, [], captions=True)
    assert picture.caption == caption


def test_a_caption_that_is_no_utf8_is_named_and_left_out(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    warnings: list[str] = []
    (picture,) = read_pictures([tmp_path / "a.png"], 32, warnings, captions=True)
    assert picture.caption == ""
    assert "The caption a.txt cannot be read as UTF-8" in warnings[0]
