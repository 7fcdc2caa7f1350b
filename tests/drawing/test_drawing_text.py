"""Text stands where it is put, in the font of any Pillow."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, ImageFont

from ti_train.drawing.text import font, wrapped, write

BITMAP = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)  # of before Pillow 10.1
PLACE = (100, 50)


def ink(text: str, face, anchor: str) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what was written."""
    picture = Image.new("L", (200, 100), "black")
    write(ImageDraw.Draw(picture), PLACE, text, face, "white", anchor)
    return picture.getbbox()


@pytest.mark.parametrize("face", [font(13), BITMAP()], ids=["own", "bitmap"])
def test_an_anchor_is_where_the_text_is(face):
    text = "0.4334"
    left, top, _, _ = ink(text, face, "la")
    assert 0 <= left - PLACE[0] < 4
    assert 0 <= top - PLACE[1] < 6
    _, _, right, _ = ink(text, face, "ra")
    assert -4 < right - PLACE[0] <= 1
    left, top, right, bottom = ink(text, face, "mm")
    assert abs((left + right) / 2 - PLACE[0]) <= 2
    assert abs((top + bottom) / 2 - PLACE[1]) <= 2


def test_what_the_bitmap_font_lacks_is_a_question_mark():
    assert ink("ねこ", BITMAP(), "la") == ink("??", BITMAP(), "la")


def test_lines_hold_what_the_font_can_draw():
    assert wrapped("ねこ is a cat", 1000, BITMAP()) == ["?? is a cat"]
