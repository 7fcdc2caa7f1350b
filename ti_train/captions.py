"""Captions: what a picture shows, in words, from the text file beside it."""

from __future__ import annotations

from pathlib import Path


def caption_file(picture: Path) -> Path:
    return picture.with_suffix(".txt")


def read_caption(file: Path) -> str:
    """One line of text. Raises OSError and UnicodeDecodeError."""
    return " ".join(file.read_text(encoding="utf-8-sig").split())


def caption_of(path: Path, warn: list[str]) -> str:
    sidecar = caption_file(path)
    try:
        return read_caption(sidecar)
    except FileNotFoundError:
        warn.append(f"{path.name} has no caption ({sidecar.name} is missing): the template is used without one.")
    except (OSError, UnicodeDecodeError) as error:
        warn.append(
            f"The caption {sidecar.name} cannot be read as UTF-8 text ({error}): the template is used without one."
        )
    return ""
