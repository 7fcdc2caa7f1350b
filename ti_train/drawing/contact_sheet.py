"""Contact sheets: labelled rows of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .colours import PAPER
from .text import font, wrapped, write

CELL = 128  # side of an image in pixels


@dataclass(frozen=True)
class Row:
    """A row of a contact sheet. captions: one below each image, or none. heading: above the row, and those after it."""

    label: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str] = ()
    heading: str = ""


def contact_sheet(rows: Sequence[Row], title: str, cell: int = CELL, margin: int = 10) -> Image.Image:
    """Rows of images, each scaled to cell x cell pixels, with the labels on the left."""
    label_width, caption_height, heading_height = 190, 18, 30
    heights = [cell + margin + caption_height * bool(row.captions) + heading_height * bool(row.heading) for row in rows]
    width = label_width + max(len(row.pictures) for row in rows) * (cell + margin) + margin
    sheet = Image.new("RGB", (width, 46 + sum(heights) + margin), PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, (margin, 12), title, font(20))
    top = 46
    for row, height in zip(rows, heights, strict=True):
        below = top + height
        if row.heading:
            write(pen, (margin, top + 6), row.heading, font(15), "#555555")
            top += heading_height
        lines = wrapped(row.label, label_width - 2 * margin, font(15))
        pen.multiline_text((margin, top + cell / 2), "\n".join(lines), "black", font(15), anchor="lm", spacing=5)
        for i, picture in enumerate(row.pictures):
            left = label_width + i * (cell + margin)
            sheet.paste(picture.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS), (left, top))
            if row.captions:
                write(pen, (left + cell / 2, top + cell + 3), row.captions[i], font(12), "#555555", "ma")
        top = below
    return sheet
