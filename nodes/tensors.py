"""ComfyUI's pictures, [B, H, W, C] in 0..1, to and from the core's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from ..ti_train.dataset import Picture
from ..ti_train.errors import UserError


def to_images(batches: Sequence[torch.Tensor]) -> list[Image.Image]:
    """Batches of IMAGE, of any sizes, as pictures; transparency is dropped as the host's nodes do."""
    pixels = (frame[..., :3] for batch in batches for frame in batch)
    return [Image.fromarray(to_bytes(frame)) for frame in pixels]


def to_bytes(frame: torch.Tensor) -> np.ndarray:
    return frame.float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def to_batch(images: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of one size as IMAGE."""
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).float() / 255


def shorter_side(images: Sequence[Image.Image], most: int) -> int:
    """The side in pixels to train at: the largest picture's shorter side, at most the model's; a multiple of 8."""
    return max(8, min(most, max(min(image.size) for image in images)) // 8 * 8)


def to_pictures(images: Sequence[Image.Image], side: int, captions: Sequence[str]) -> Iterator[Picture]:
    """Square training pictures; one caption stands for all. Raises UserError where the numbers differ."""
    if len(captions) not in (0, 1, len(images)):
        raise UserError(
            f"There are {len(images)} pictures and {len(captions)} captions. Connect one caption for each picture, "
            "in their order, or a single one for all."
        )
    texts = list(captions) or [""]
    texts *= len(images) // len(texts)
    for number, (image, text) in enumerate(zip(images, texts, strict=True), 1):
        yield Picture.cropped(f"picture {number}", image, (side, side), " ".join(text.split()))
