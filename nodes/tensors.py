"""Conversion between ComfyUI's image tensors, [B, H, W, C] in 0..1, and the core's images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image


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


def side_to_train_at(sizes: Iterable[tuple[int, int]], most: int, square: bool = False, unit: int = 8) -> int:
    """Training resolution in pixels, a multiple of unit: `most`, or less if no image of these sizes has as many."""
    sides = (min(size) if square else math.sqrt(math.prod(size)) for size in sizes)
    return max(unit, int(min(most, max(sides, default=0))) // unit * unit)
