"""Contact sheets."""

from __future__ import annotations

from PIL import Image

from ti_train.drawing.contact_sheet import Row, contact_sheet


def test_a_contact_sheet_may_say_words_of_any_script():
    sheet = contact_sheet([Row("ねこ", [Image.new("RGB", (8, 8), "teal")], ["いぬ"])], "ねこ")
    assert sheet.crop((0, 0, 190, 46)).getextrema() != ((255, 255),) * 3
