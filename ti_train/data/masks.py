"""Masks: which part of an image is trained on. White counts fully, black not at all, grey in proportion.

A mask file is NAME-mask.png beside its image, or a file in masks/ with the image's name (or NAME.png), as in ai-toolkit
and kohya's scripts; OneTrainer's NAME-masklabel.png is read too. Their names are unambiguous, so they are used by
default. An alpha channel is used on request only, as in all of these tools and in A1111: many images have one for
other reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Source = Literal["files", "alpha", "none"]  # alpha: the mask file if there is one, else the alpha channel
ENDINGS = ("-mask.png", "-masklabel.png")
FOLDER = "masks"


def mask_file(picture: Path) -> Path | None:
    """The mask file of an image, or None."""
    beside = [picture.with_name(picture.stem + ending) for ending in ENDINGS]
    inside = [picture.parent / FOLDER / name for name in (picture.name, f"{picture.stem}.png")]
    return next((path for path in beside + inside if path.is_file()), None)


def without_masks(pictures: Sequence[Path]) -> list[Path]:
    """The images of a folder that are not masks of others."""
    masks = {path.stem + ending for path in pictures for ending in ENDINGS}
    return [path for path in pictures if path.name not in masks]
