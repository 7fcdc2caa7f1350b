"""Measures beside the paper's: each compares the samples of the plain prompt with images, in a space of features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.dataset import read_pictures
from ..data.listing import Listing, subfolders
from ..data.picture import Picture
from ..errors import UserError
from ..text import Remarks
from .clip import image_similarity, similarity_among

Features = Callable[[Sequence[Image.Image]], Tensor]  # [N, D] of unit norm


@dataclass(frozen=True)
class Measure:
    """A measure with its name. of: of samples. of_pictures: of the training images themselves, as a reference."""

    name: str
    of: Callable[[Sequence[Image.Image]], float]
    of_pictures: float


def likeness(name: str, features: Features, pictures: Sequence[Image.Image]) -> Measure:
    """The mean cosine similarity over all pairs of a sample and a training image."""
    own = features(pictures)
    return Measure(name, lambda samples: image_similarity(features(samples), own), similarity_among(own))


def masked(space: str, features: Features, pictures: Sequence[Picture]) -> list[Measure]:
    """Likeness to what the masks show, and to what they hide; [] if no image has a mask that hides anything.

    The other part is painted in the mean colour of the image. A concept trained with its background is like the hidden
    part too: more like it than the initial text is. (The two scores of CoRe, Wu et al. 2024, for whole images.)
    """
    parts = [picture for picture in pictures if picture.mask is not None and picture.mask.min() < 255]
    if not parts:
        return []
    subject, background = ([part_of(picture, shown) for picture in parts] for shown in (True, False))
    return [
        likeness(f"{space}, subject alone", features, subject),
        likeness(f"{space}, background alone", features, background),
    ]


def part_of(picture: Picture, shown: bool) -> Image.Image:
    """What a picture's mask shows, or hides; the rest in the picture's mean colour."""
    assert picture.mask is not None
    weight = np.clip(picture.mask.astype(np.float32) / 255, 0, 1)[..., None]
    kept = weight if shown else 1 - weight
    mean = picture.pixels.reshape(-1, 3).mean(0)
    return Image.fromarray((kept * picture.pixels + (1 - kept) * mean).round().astype(np.uint8))


def retrieval(space: str, features: Features, own: Sequence[Image.Image], others: Sequence[Image.Image]) -> Measure:
    """How surely samples find their own subject among look-alikes: the mean over samples of 1 / rank.

    The rank is that of the nearest training image among all images by cosine similarity; 1 if each sample's nearest
    image is one of its subject. (After the Finer-Personalization Rank, arXiv 2512.19026.)
    """
    ours, theirs = features(own), features(others)

    def of_features(samples: Tensor, ours: Tensor) -> Tensor:
        """1 / rank of each sample [N]."""
        best = (samples @ ours.T).amax(1, keepdim=True)
        return 1 / (1 + (samples @ theirs.T > best).sum(1))

    def of_pictures() -> float:
        """Of each training image among the others."""
        alone = [torch.cat([ours[:i], ours[i + 1 :]]) for i in range(len(ours))]
        ranks = [of_features(ours[i : i + 1], rest) for i, rest in enumerate(alone) if len(rest)]
        return float(torch.cat(ranks).mean()) if ranks else 1.0

    name = f"{space}, found among others"
    return Measure(name, lambda samples: float(of_features(features(samples), ours).mean()), of_pictures())


def gallery(folder: Path, own: Sequence[Picture], side: int, warn: Remarks) -> list[Image.Image]:
    """The images of a folder's subfolders, without the training images; appends to `warn` what cannot be used.

    Raises UserError if there are none.
    """
    read = (read_pictures(Listing.of(inner).images, side, warn) for inner in subfolders(folder))
    found = others(own, (Image.fromarray(picture.pixels) for pictures in read for picture in pictures))
    if not found:
        raise UserError(f"--gallery '{folder}' has no subfolders with images of other things, such as {folder}/my-dog.")
    return found


def others(own: Sequence[Picture], images: Iterable[Image.Image]) -> list[Image.Image]:
    """Images, cropped as the training images are, without these."""
    known = {picture.pixels.tobytes() for picture in own}
    return [image for image in images if image.tobytes() not in known]


def further_measures(
    pictures: Sequence[Picture], others: Sequence[Image.Image], clip: Features, dino: Features | None
) -> list[Measure]:
    """What masks of the training images, look-alikes and DINOv2 allow to be measured. dino: None if it is not given."""
    images = [Image.fromarray(picture.pixels) for picture in pictures]
    space, features = ("DINOv2", dino) if dino else ("CLIP", clip)
    found = [likeness(space, features, images)] if dino else []
    found += masked(space, features, pictures)
    return [*found, retrieval(space, features, images, others)] if others else found


def measured(measures: Sequence[Measure], samples: Sequence[Image.Image]) -> Mapping[str, float]:
    return {measure.name: measure.of(samples) for measure in measures}
