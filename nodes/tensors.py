"""Conversion between ComfyUI's image tensors, [B, H, W, C] in 0..1, and the core's images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from ..ti_train.data.picture import Picture, bucket
from ..ti_train.errors import UserError

T = TypeVar("T")


def to_images(batches: Sequence[torch.Tensor]) -> list[Image.Image]:
    """Images from batches of IMAGE of any sizes. Alpha is dropped, as ComfyUI's own nodes do."""
    pixels = (frame[..., :3] for batch in batches for frame in batch)
    return [Image.fromarray(to_bytes(frame)) for frame in pixels]


def to_masks(batches: Sequence[torch.Tensor]) -> list[Image.Image | None]:
    """Grayscale images from batches of MASK, [B, H, W] or [H, W]; None for an empty one: ComfyUI's "no mask"."""
    frames = (frame for batch in batches for frame in batch.reshape(-1, *batch.shape[-2:]))
    return [Image.fromarray(to_bytes(frame)) if frame.any() else None for frame in frames]


def to_bytes(frame: torch.Tensor) -> np.ndarray:
    return frame.float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def to_batch(images: Sequence[Image.Image]) -> torch.Tensor:
    """IMAGE, [B, H, W, 3], from images of one size."""
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).float() / 255


def to_mask(grey: Image.Image) -> torch.Tensor:
    """MASK, [1, H, W], from a grayscale image."""
    return torch.from_numpy(np.asarray(grey).copy()).float().div(255)[None]


def side_to_train_at(sizes: Iterable[tuple[int, int]], most: int, square: bool = False) -> int:
    """Training resolution in pixels, a multiple of 8: `most`, or less if no image of these sizes has as many pixels."""
    sides = (min(size) if square else math.sqrt(math.prod(size)) for size in sizes)
    return max(8, int(min(most, max(sides, default=0))) // 8 * 8)


def to_pictures(
    images: Sequence[Image.Image],
    side: int,
    square: bool,
    captions: Sequence[str],
    masks: Sequence[Image.Image | None] = (),
) -> Iterator[Picture]:
    """Training images, cropped to their aspect-ratio buckets or to squares.

    Raises UserError if the number of captions or masks differs from that of the images, and for an unusable mask.
    """
    texts = one_each(captions or [""], "captions", images)
    shades = one_each(masks or [None], "masks", images)
    for number, (image, text, mask) in enumerate(zip(images, texts, shades, strict=True), 1):
        name, shape = f"image {number}", (side, side) if square else bucket(image.size, side)
        try:
            yield Picture.cropped(name, image, shape, " ".join(text.split()), mask)
        except UserError as error:
            raise UserError(f"{name.capitalize()}: {error}") from None


def one_each(values: Sequence[T], kind: str, images: Sequence[Image.Image]) -> list[T]:
    """One value per image; a single value is used for all."""
    if len(values) not in (1, len(images)):
        raise UserError(
            f"There are {len(images)} images and {len(values)} {kind}. Connect one per image, in the same order, "
            "or one for all."
        )
    return list(values) * (len(images) // len(values))
