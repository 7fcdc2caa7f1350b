"""Text on pictures, with the font that Pillow brings along."""

from __future__ import annotations

from PIL import ImageDraw, ImageFont

Face = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font(size: int) -> Face:
    """Pillow's own font; before 10.1 it came in one size."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        return ImageFont.load_default()


def legible(text: str, face: Face) -> str:
    """The text as the font can draw it: before Pillow 10.1 it has Latin letters only."""
    return text if isinstance(face, ImageFont.FreeTypeFont) else text.encode("latin-1", "replace").decode("latin-1")


def write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, face: Face, fill: str = "black", anchor: str = "la"
) -> None:
    """Text at an anchor: l, m or r of its width, a (top) or m of its height. Pillow's font before 10.1 knows none."""
    if isinstance(face, ImageFont.FreeTypeFont):
        pen.text(place, text, fill, face, anchor)
        return
    left, top, right, bottom = face.getbbox(legible(text, face))
    across = {"l": 0, "m": (right - left) / 2, "r": right - left}[anchor[0]]
    down = {"a": 0, "m": (bottom - top) / 2}[anchor[1]]
    pen.text((round(place[0] - across), round(place[1] - down)), legible(text, face), fill, face)


def wrapped(text: str, width: float, face: Face) -> list[str]:
    """A text as the font can draw it, in lines of at most `width` pixels, broken between words."""
    lines = [""]
    for word in legible(text, face).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
