"""Drawing text with Pillow's built-in font."""

from __future__ import annotations

from PIL import ImageDraw, ImageFont

Face = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font(size: int) -> Face:
    """Pillow's built-in font; before 10.1 it had a single size."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        return ImageFont.load_default()


def legible(text: str, face: Face) -> str:
    """The text without characters that the font lacks: before Pillow 10.1 it is Latin-1 only."""
    return text if isinstance(face, ImageFont.FreeTypeFont) else text.encode("latin-1", "replace").decode("latin-1")


def write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, face: Face, fill: str = "black", anchor: str = "la"
) -> None:
    """Draws text. anchor: l, m or r horizontally, a (top) or m vertically; Pillow's font before 10.1 has no anchors."""
    if isinstance(face, ImageFont.FreeTypeFont):
        pen.text(place, text, fill, face, anchor)
        return
    left, top, right, bottom = face.getbbox(legible(text, face))
    across = {"l": 0, "m": (right - left) / 2, "r": right - left}[anchor[0]]
    down = {"a": 0, "m": (bottom - top) / 2}[anchor[1]]
    pen.text((round(place[0] - across), round(place[1] - down)), legible(text, face), fill, face)


def wrapped(text: str, width: float, face: Face) -> list[str]:
    """Wraps a text between words into lines of at most `width` pixels, without characters that the font lacks."""
    lines = [""]
    for word in legible(text, face).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
