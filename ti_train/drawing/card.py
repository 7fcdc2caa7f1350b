"""Cards: an image that identifies an embedding, and a text as an image."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .text import font, wrapped


def draw_card(name: str, lines: list[str], vectors: list[Tensor], side: int = 512, margin: int = 24) -> Image.Image:
    """An image that identifies an embedding: its vectors as grey bands, its name, and `lines`."""
    card = Image.new("RGB", (side, side), "white")
    height = side // 2 // len(vectors)
    for number, rows in enumerate(vectors):
        grey = (128 + 48 * rows / rows.square().mean().sqrt().clamp_min(1e-9)).clamp(0, 255).to(torch.uint8)
        card.paste(Image.fromarray(grey.numpy()).resize((side, height), Image.Resampling.BOX), (0, number * height))
    pen, top = ImageDraw.Draw(card), side // 2 + margin
    for text, size in ((name, 36), *((line, 18) for line in lines)):
        face = font(size)
        for part in wrapped(text, side - 2 * margin, face):
            pen.text((margin, top), part, "black", face)
            top += size * 5 // 4
    return card


def card(text: str, side: int = 640, margin: int = 16) -> Image.Image:
    """A text as an image with wrapped lines."""
    face, height = font(17), 26
    lines = [line for part in text.splitlines() for line in wrapped(part, side - 2 * margin, face)]
    picture = Image.new("RGB", (side, 2 * margin + height * len(lines)), "white")
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        pen.text((margin, margin + height * number), line, "black", face)
    return picture
