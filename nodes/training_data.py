"""The images that Train Embedding was given, each with its caption and mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from PIL import Image

from ..ti_train.data.picture import Picture, bucket
from ..ti_train.errors import UserError
from ..ti_train.prompts import Templates
from ..ti_train.text import one_line
from ..ti_train.training.session import unused_captions
from .tensors import to_images, to_masks

T = TypeVar("T")


class TrainingImage(torch.Tensor):
    """An IMAGE, [1, H, W, 3], that carries its caption and mask, so that one wire brings all three.

    Whatever is computed from it is a plain tensor: a scaled image does not keep a mask of another size.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment] # as in torch.nn.Parameter
    caption: str
    mask: torch.Tensor | None  # [1, H, W]; None: the whole image
    unused_mask: bool  # whether it has a mask that the user has switched off

    @classmethod
    def of(cls, image: torch.Tensor, caption: str, mask: torch.Tensor | None, unused_mask: bool) -> TrainingImage:
        made = image.as_subclass(cls)
        made.caption, made.mask, made.unused_mask = caption, mask, unused_mask
        return made


@dataclass(frozen=True)
class TrainingData:
    """Images of any sizes; one caption and one mask each, empty or None where an image has none."""

    images: list[Image.Image]
    captions: list[str]
    masks: list[Image.Image | None]
    unused_masks: int = 0
    replaced_captions: int = 0  # that came with the images, by others that are connected
    replaced_masks: int = 0
    missing: frozenset[str] = frozenset()  # "captions", "masks": neither come with every image nor are connected

    @classmethod
    def gathered(
        cls, batches: Sequence[torch.Tensor], captions: Sequence[str], masks: Sequence[torch.Tensor]
    ) -> TrainingData:
        """From the inputs of a node. Captions and masks that are connected replace those that the images carry.

        Raises UserError if their number differs from that of the images.
        """
        images = to_images(batches)
        frames = [batch if isinstance(batch, TrainingImage) else None for batch in batches for _ in batch]
        carried_captions = [frame.caption if frame is not None else "" for frame in frames]
        carried_masks = [None if frame is None or frame.mask is None else to_masks([frame.mask])[0] for frame in frames]
        used_captions = one_each(captions, "captions", images) if captions else carried_captions
        used_masks = one_each(to_masks(masks), "masks", images) if masks else carried_masks
        connected = {"captions": captions, "masks": masks}
        return cls(
            images,
            used_captions,
            used_masks,
            0 if masks else sum(frame is not None and frame.unused_mask for frame in frames),
            sum(bool(a.strip()) and a != b for a, b in zip(carried_captions, used_captions, strict=True)),
            sum(a is not None and a != b for a, b in zip(carried_masks, used_masks, strict=True)),
            frozenset(kind for kind, given in connected.items() if not given and None in frames),
        )

    @property
    def has_captions(self) -> bool:
        return any(map(str.strip, self.captions))

    def pictures(self, side: int, square: bool, unit: int) -> Iterator[Picture]:
        """Cropped to their aspect-ratio buckets (see `bucket`) or to squares. Raises UserError for an unusable mask."""
        for number, (image, text, mask) in enumerate(zip(self.images, self.captions, self.masks, strict=True), 1):
            name, shape = f"image {number}", (side, side) if square else bucket(image.size, side, unit)
            try:
                yield Picture.cropped(name, image, shape, one_line(text), mask)
            except UserError as error:
                raise UserError(f"{name.capitalize()}: {error}") from None

    def facts(self, templates: Templates, side: int) -> dict[str, int]:
        """What is trained with, for the page."""
        used = [text for text in self.captions if text.strip() and templates.uses(text)]
        masks = sum(mask is not None for mask in self.masks)
        return {"images": len(self.images), "captions": len(used), "masks": masks, "side": side}

    def remarks(self, templates: Templates, source: str) -> list[str]:
        """What was given but is not used. source: the option that chose the templates."""
        remarks = unused_captions(self.captions, templates, source)
        if self.replaced_captions:
            remarks.append(
                f"The captions that {self.replaced_captions} images bring are not used: others are connected to "
                "captions."
            )
        return remarks + self.mask_remarks()

    def mask_remarks(self) -> list[str]:
        """Which masks were given but are not used."""
        reasons = {
            f"The masks of {self.unused_masks} images are not used: use_masks is off in Load Training Images.": (
                self.unused_masks
            ),
            f"The masks that {self.replaced_masks} images bring are not used: others are connected to masks.": (
                self.replaced_masks
            ),
        }
        return [why for why, count in reasons.items() if count]


def one_each(values: Sequence[T], kind: str, images: Sequence[Image.Image]) -> list[T]:
    """One value per image; a single value is used for all."""
    if len(values) not in (1, len(images)):
        raise UserError(
            f"There are {len(images)} images and {len(values)} {kind}. Connect one per image, in the same order, "
            "or one for all."
        )
    return list(values) * (len(images) // len(values))
