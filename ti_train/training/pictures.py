"""The previews that may become the picture of an embedding: that of its own step, or the nearest earlier one.

A run leaves the last step's vectors or those of the best step (see keeping.py). So the latest preview and the one of
the best step are enough. They are saved with the run's state, for a resumed run.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..formats.preview import scaled

Pictures = Mapping[str, Tensor]  # step -> a PNG file, uint8 [bytes]


def with_preview(pictures: Pictures, step: int, image: Image.Image, best: int | None) -> dict[str, Tensor]:
    """The pictures with a preview of a step, without those that are no longer needed. best: the best step so far."""
    png = io.BytesIO()
    scaled(image).save(png, "PNG")
    more = {**pictures, str(step): torch.from_numpy(np.frombuffer(png.getvalue(), np.uint8).copy())}
    needed = {step, _nearest(more, best or step)}
    return {key: picture for key, picture in more.items() if int(key) in needed}


def picture_of(pictures: Pictures, step: int) -> Image.Image | None:
    """The preview of the vectors of a step: the nearest one that is not later; None if there is none."""
    nearest = _nearest(pictures, step)
    return None if nearest is None else Image.open(io.BytesIO(pictures[str(nearest)].numpy().tobytes()))


def _nearest(steps: Iterable[str], step: int) -> int | None:
    return max((number for number in map(int, steps) if 0 < number <= step), default=None)
