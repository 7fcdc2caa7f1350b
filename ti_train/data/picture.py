"""A training picture: its middle, cut and scaled to a shape that the model is trained at."""

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
    """A picture as it is trained on, uint8 [h, w, 3], with its file's name, where it was cut from and its caption.

    mask: how much each pixel counts, uint8 or float [h, w] from 0 up; None: all alike. repeats: times in a round.
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
        """The middle of an RGB image, and of its mask in mode L, scaled to shape (height, width) in pixels.

        Raises UserError for a mask of other proportions than the image, and for one that leaves nothing to learn.
        """
        pixels, size = crop(image, shape)
        cut = None if mask is None else _crop_mask(mask, image.size, shape)
        return cls(name, pixels, size, caption, cut, repeats)

    def mirrored(self) -> Picture:
        mask = None if self.mask is None else self.mask[:, ::-1]
        return replace(self, pixels=self.pixels[:, ::-1], mask=mask)


def bucket(image_size: tuple[int, int], side: int) -> tuple[int, int]:
    """The shape (height, width) nearest to an image's (width, height) of about side x side pixels; square for a square.

    Sides are multiples of 64 pixels (fewer below 512) from about half of `side` to twice as much: "aspect ratio
    bucketing", by which NovelAI (2022) trained Stable Diffusion; kohya's scripts have the same shapes.
    """
    width, height = image_size
    return min(_shapes(side), key=lambda shape: abs(math.log(shape[1] * height / (shape[0] * width))))


@cache
def _shapes(side: int) -> tuple[tuple[int, int], ...]:
    unit = min(64, max(8, side // 64 * 8))
    shapes = {(side, side)}
    for long in range(-(-side // unit) * unit, 2 * side + 1, unit):
        short = side * side // long // unit * unit
        if short >= max(unit, side // 2 // unit * unit):
            shapes |= {(long, short), (short, long)}
    return tuple(sorted(shapes))


def crop(image: Image.Image, shape: tuple[int, int]) -> tuple[np.ndarray, Size]:
    """The largest centred part of an image with the proportions of shape (height, width), scaled to it."""
    height, width = shape
    pixels = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))
    scale = max(height / image.height, width / image.width)
    top, left = round((scale * image.height - height) / 2), round((scale * image.width - width) / 2)
    return pixels, Size((image.height, image.width), (top, left), shape)


def _crop_mask(mask: Image.Image, image_size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    (width, height), (mask_width, mask_height) = image_size, mask.size
    if abs(mask_width * height - width * mask_height) > max(*image_size, *mask.size):  # more than a pixel of rounding
        raise UserError(
            f"the mask has {mask_width} x {mask_height} pixels and the picture {width} x {height}: "
            "they do not cover each other. Save the mask in the picture's size."
        )
    cut = np.asarray(ImageOps.fit(mask, shape[::-1], Image.Resampling.BOX))
    if not cut.any():
        raise UserError(
            "the mask is black wherever the picture is used, which leaves nothing to learn. White marks what to learn."
        )
    return cut
