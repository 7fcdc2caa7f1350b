"""Similarity in CLIP space, as in the paper (Gal et al. 2022, section 5).

open_clip is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import UserError
from ..prompts import PLACEHOLDER

ENCODED_AT_ONCE = 16  # images per forward pass
PAPERS_MODEL = "ViT-B-32-quickgelu"  # the activation of OpenAI's weights; other weights use ViT-B-32
WHERE_WEIGHTS_ARE = (
    "The paper uses OpenAI's ViT-B/32: open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai on "
    "Hugging Face. With --clip-weights openai, open_clip downloads them."
)


def image_similarity(samples: Tensor, pictures: Tensor) -> float:
    """Mean cosine similarity over all pairs. samples: [N, D], pictures: [M, D], of unit norm."""
    return float((samples @ pictures.T).mean())


def similarity_among(pictures: Tensor) -> float:
    """Mean cosine similarity over all pairs of different images [M, D] of unit norm; 1 if there is only one."""
    count = len(pictures)
    if count == 1:
        return 1.0
    return float((pictures @ pictures.T).sum() - count) / (count * (count - 1))


def text_similarity(samples: Tensor, text: Tensor) -> float:
    """Cosine similarity between the mean of the samples [N, D] and a text [D], of unit norm.

    As the paper defines it. Its repository averages the cosines instead, which is lower by the norm of the mean.
    """
    return float(torch.cosine_similarity(samples.mean(0), text, dim=0))


def without_placeholder(prompt: str) -> str:
    return " ".join(prompt.replace(PLACEHOLDER, " ").split())


class Clip:
    """A CLIP model of open_clip with its preprocessing and tokenizer."""

    def __init__(self, model: Any, preprocess: Any, tokenize: Any, name: str) -> None:
        self.model, self.preprocess, self.tokenize, self.name = model.eval(), preprocess, tokenize, name

    @classmethod
    def load(cls, model: str, weights: str) -> Clip:
        """Loads one of open_clip's models. weights: a file, or open_clip's name of pretrained weights.

        Raises UserError if anything is missing: open_clip would use random weights.
        """
        try:
            import open_clip
        except ImportError:
            raise UserError("The evaluation needs open_clip. Install it with: pip install open_clip_torch") from None
        if model not in open_clip.list_models():
            raise UserError(f"open_clip has no model '{model}'. The paper uses {PAPERS_MODEL}.")
        if not weights:
            raise UserError(f"The evaluation needs CLIP weights: --clip-weights FILE. {WHERE_WEIGHTS_ARE}")
        published = open_clip.list_pretrained_tags_by_model(model)
        if not Path(weights).is_file() and weights not in published:
            raise UserError(
                f"--clip-weights '{weights}' is neither a file nor a name of open_clip's weights for {model} "
                f"({', '.join(published) or 'it has none'}). {WHERE_WEIGHTS_ARE}"
            )
        try:
            loaded, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=weights)
        except Exception as error:  # the errors of torch, pickle, safetensors and the hub have no common base
            raise UserError(
                f"The weights '{weights}' cannot be loaded into {model} ({str(error).splitlines()[0]}). "
                "Give the model of these weights (--clip-model, clip_model), or download them again."
            ) from error
        return cls(loaded, preprocess, open_clip.get_tokenizer(model), f"CLIP {model}, {Path(weights).name}")

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Features of images, [N, D] fp32 of unit norm, on the CPU."""
        parts = []
        for start in range(0, len(pictures), ENCODED_AT_ONCE):
            chunk = torch.stack([self.preprocess(picture) for picture in pictures[start : start + ENCODED_AT_ONCE]])
            parts.append(self.model.encode_image(chunk.to(self._device)).float().cpu())
        return normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def text_features(self, text: str) -> Tensor:
        """Features of a text, [D] fp32 of unit norm, on the CPU."""
        return normalize(self.model.encode_text(self.tokenize([text]).to(self._device)).float().cpu()[0], dim=0)

    def to(self, device: torch.device) -> Clip:
        self.model.to(device)
        return self

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device


class ClipJudge:
    """A Judge (see evaluate.py) in CLIP space."""

    def __init__(self, clip: Clip, pictures: Sequence[Image.Image]) -> None:
        self.clip, self.name, self.pictures = clip, clip.name, pictures
        self.features = clip.features(pictures)

    def image_similarity(self, samples: Sequence[Image.Image]) -> float:
        return image_similarity(self.clip.features(samples), self.features)

    def text_similarity(self, samples: Sequence[Image.Image], prompt: str) -> float:
        text = self.clip.text_features(without_placeholder(prompt))
        return text_similarity(self.clip.features(samples), text)

    def similarity_of_pictures(self) -> float:
        return similarity_among(self.features)
