"""A training image: cropped to the centre and scaled to a bucket's shape."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError
from ..host import Size


@dataclass(frozen=True)
class Picture:
    """A cropped and scaled training image.

    pixels: uint8 [h, w, 3]. mask: weight of each pixel in the loss, uint8 or float [h, w], 0 or more; None: all equal.
    repeats: per epoch.
    """

    name: str
    pixels: np.ndarray
    size: Size
    caption: str = ""
    mask: np.ndarray | None = None
    repeats: int = 1

    @classmethod
    def cropped(
        cls,
        name: str,
        image: Image.Image,
        shape: tuple[int, int],
        caption: str = "",
        mask: Image.Image | None = None,
        repeats: int = 1,
    ) -> Picture:
        """Crops an RGB image, and its mask in mode L, to shape (height, width) in pixels.

        Raises UserError for a mask whose proportions differ from the image's, and for one that is black all over.
        """
        pixels, size = crop(image, shape)
        cut = None if mask is None else _crop_mask(mask, image.size, shape)
        return cls(name, pixels, size, caption, cut, repeats)

    def mirrored(self) -> Picture:
        mask = None if self.mask is None else self.mask[:, ::-1]
        return replace(self, pixels=self.pixels[:, ::-1], mask=mask)


def bucket(image_size: tuple[int, int], side: int, unit: int = 8) -> tuple[int, int]:
    """The bucket (height, width) nearest to an image's (width, height), of about side x side pixels.

    Sides are multiples of 64 pixels (less below 512, but of `unit`), from about half to twice `side`: the aspect ratio
    buckets of NovelAI (2022) and of kohya's scripts.
    """
    width, height = image_size
    return min(_shapes(side, unit), key=lambda shape: abs(math.log(shape[1] * height / (shape[0] * width))))


@cache
def _shapes(side: int, unit: int) -> tuple[tuple[int, int], ...]:
    step = max(unit, min(64, side // 64 * 8) // unit * unit)
    shapes = {(side, side)}
    for long in range(-(-side // step) * step, 2 * side + 1, step):
        short = side * side // long // step * step
        if short >= max(step, side // 2 // step * step):
            shapes |= {(long, short), (short, long)}
    return tuple(sorted(shapes))


def crop(image: Image.Image, shape: tuple[int, int]) -> tuple[np.ndarray, Size]:
    """The largest centre crop with the proportions of shape (height, width), scaled to it."""
    height, width = shape
    pixels = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))
    scale = max(height / image.height, width / image.width)
    top, left = round((scale * image.height - height) / 2), round((scale * image.width - width) / 2)
    return pixels, Size((image.height, image.width), (top, left), shape)


def _crop_mask(mask: Image.Image, image_size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    (width, height), (mask_width, mask_height) = image_size, mask.size
    if abs(mask_width * height - width * mask_height) > max(
        *image_size, *mask.size
    ):  # more than a pixel of rounding error
        raise UserError(
            f"the mask has {mask_width} x {mask_height} pixels, but the image {width} x {height}. "
            "Save the mask in the size of the image."
        )
    cut = np.asarray(ImageOps.fit(mask, shape[::-1], Image.Resampling.BOX))
    if not cut.any():
        raise UserError(
            "the mask is black over the whole crop, so nothing would be trained on. Paint what to train on white."
        )
    return cut
