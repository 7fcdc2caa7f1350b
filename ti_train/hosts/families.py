"""Properties of model families that do not depend on the host."""

from __future__ import annotations

from ..host import Prediction


def resolution_of(context_width: int | None, prediction: Prediction) -> int:
    """Side in pixels of a family's training images, from the width of its text conditioning.

    512 for Stable Diffusion 1 and 2's base model, 768 for 2 with v-prediction, 1024 for XL and later families.
    """
    if context_width == 1024:
        return 512 if prediction == "eps" else 768
    return 512 if context_width == 768 else 1024
