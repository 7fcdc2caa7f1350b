"""Text on pictures, with the font that Pillow brings along."""

from __future__ import annotations

from PIL import ImageFont

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


def wrapped(text: str, width: float, face: Face) -> list[str]:
    """A text in lines of at most `width` pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
