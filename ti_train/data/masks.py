"""Masks: which part of an image is trained on. White counts fully, black not at all, grey in proportion.

A mask is an image file beside its image, named NAME-mask, NAME_mask, NAME.mask or OneTrainer's NAME-masklabel
(-masklabel1 to 9 are variants, of which the first is used), or a file in masks/ with the image's name, as in ai-toolkit
and kohya's scripts. These names are unambiguous, so they are used by default. An alpha channel is used on request only,
as in all of these tools and in A1111: many images have one for other reasons.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

Source = Literal["files", "alpha", "none"]  # alpha: the mask file if there is one, else the alpha channel
FOLDER = "masks"
NAME = re.compile(r"(?P<image>.+)[-_.](?P<kind>mask|masklabel[1-9]?|condlabel)", re.IGNORECASE)
PLAIN = "mask"  # also an English word: cat-mask.png may be a cat with a mask on
CONDITION = "condlabel"  # OneTrainer's conditioning images, which are no masks


def named_as_mask(file: Path) -> tuple[str, str] | None:
    """The name of the image that a file is named as the mask of, and the kind in lower case."""
    match = NAME.fullmatch(file.stem)
    return (match["image"], match["kind"].lower()) if match else None
