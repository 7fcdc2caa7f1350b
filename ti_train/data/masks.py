"""Masks: which part of a picture is learnt. White counts, black does not, grey counts in proportion.

A mask file lies beside its picture as NAME-mask.png, or in a folder masks/ under the picture's own name (or as
NAME.png), as ai-toolkit and kohya's scripts have it; OneTrainer's NAME-masklabel.png is read too. A mask file says what
it is for by its name, so it is used without being asked for. An alpha channel is a mask only where the user says so, as
in all of these and in A1111: many pictures have one for other reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Source = Literal["files", "alpha", "none"]  # alpha: the mask file where there is one, else the alpha channel
ENDINGS = ("-mask.png", "-masklabel.png")
FOLDER = "masks"


def mask_file(picture: Path) -> Path | None:
    """The mask file of a picture, where it has one."""
    beside = [picture.with_name(picture.stem + ending) for ending in ENDINGS]
    inside = [picture.parent / FOLDER / name for name in (picture.name, f"{picture.stem}.png")]
    return next((path for path in beside + inside if path.is_file()), None)


def without_masks(pictures: Sequence[Path]) -> list[Path]:
    """The pictures of one folder that are not the mask of another one."""
    masks = {path.stem + ending for path in pictures for ending in ENDINGS}
    return [path for path in pictures if path.name not in masks]
