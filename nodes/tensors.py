"""ComfyUI's pictures, [B, H, W, C] in 0..1, to and from the core's."""

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
    """Batches of IMAGE, of any sizes, as pictures; transparency is dropped as the host's nodes do."""
    pixels = (frame[..., :3] for batch in batches for frame in batch)
    return [Image.fromarray(to_bytes(frame)) for frame in pixels]


def to_masks(batches: Sequence[torch.Tensor]) -> list[Image.Image | None]:
    """Batches of MASK, [B, H, W] or [H, W], as grey pictures; an empty one is ComfyUI's word for no mask."""
    frames = (frame for batch in batches for frame in batch.reshape(-1, *batch.shape[-2:]))
    return [Image.fromarray(to_bytes(frame)) if frame.any() else None for frame in frames]


def to_bytes(frame: torch.Tensor) -> np.ndarray:
    return frame.float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def to_batch(images: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of one size as IMAGE."""
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).float() / 255


def to_mask(grey: Image.Image) -> torch.Tensor:
    """A grey picture as MASK, [1, H, W]."""
    return torch.from_numpy(np.asarray(grey).copy()).float().div(255)[None]


def side_to_train_at(sizes: Iterable[tuple[int, int]], most: int, square: bool = False) -> int:
    """In pixels: `most`, the model's own, or less where no picture of these sizes has as many; a multiple of 8."""
    sides = (min(size) if square else math.sqrt(math.prod(size)) for size in sizes)
    return max(8, int(min(most, max(sides, default=0))) // 8 * 8)


def to_pictures(
    images: Sequence[Image.Image],
    side: int,
    square: bool,
    captions: Sequence[str],
    masks: Sequence[Image.Image | None] = (),
) -> Iterator[Picture]:
    """Training pictures in their buckets, or square.

    Raises UserError for captions or masks of another number than pictures, and for a mask that cannot be one.
    """
    texts = one_each(captions or [""], "captions", images)
    shades = one_each(masks or [None], "masks", images)
    for number, (image, text, mask) in enumerate(zip(images, texts, shades, strict=True), 1):
        name, shape = f"picture {number}", (side, side) if square else bucket(image.size, side)
        try:
            yield Picture.cropped(name, image, shape, " ".join(text.split()), mask)
        except UserError as error:
            raise UserError(f"{name.capitalize()}: {error}") from None


def one_each(values: Sequence[T], kind: str, images: Sequence[Image.Image]) -> list[T]:
    """One value for each picture; a single one stands for all."""
    if len(values) not in (1, len(images)):
        raise UserError(
            f"There are {len(images)} pictures and {len(values)} {kind}. Connect one for each picture, in their "
            "order, or a single one for all."
        )
    return list(values) * (len(images) // len(values))
