"""Similarity in the space of DINOv2, which tells instances apart where CLIP sees one class (Oquab et al. 2023).

transformers is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import UserError

ENCODED_AT_ONCE = 16  # images per forward pass
SHORT_SIDE, CROP = 256, 224  # pixels, as DINOv2 is evaluated
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
WHERE_WEIGHTS_ARE = "DINOv2-base is facebook/dinov2-base on Hugging Face: a folder with config.json and weights."


class Dino:
    """A DINOv2 model of transformers."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model.eval().requires_grad_(False), name

    @classmethod
    def load(cls, folder: Path) -> Dino:
        """Loads a folder of transformers. Raises UserError."""
        try:
            from transformers import Dinov2Model
        except ImportError:
            raise UserError(
                "DINOv2 needs transformers 4.32 or newer. Install it with: pip install -U transformers"
            ) from None
        if not (folder / "config.json").is_file():
            raise UserError(f"The folder '{folder}' has no config.json. {WHERE_WEIGHTS_ARE}")
        try:
            model, report = Dinov2Model.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        except Exception as error:  # the errors of torch, safetensors and transformers have no common base
            why = str(error).splitlines()[0]
            raise UserError(f"The weights in '{folder}' cannot be loaded ({why}). {WHERE_WEIGHTS_ARE}") from error
        if report["missing_keys"]:
            raise UserError(f"'{folder}' is no DINOv2 model: it lacks {sorted(report['missing_keys'])[0]}.")
        return cls(model, f"DINOv2 {folder.name}")

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Features of images, those of the class token after the last norm: [N, D] fp32 of unit norm, on the CPU."""
        parts = []
        for start in range(0, len(pictures), ENCODED_AT_ONCE):
            chunk = torch.stack([_pixels(picture) for picture in pictures[start : start + ENCODED_AT_ONCE]])
            parts.append(self.model(chunk.to(self.model.device)).pooler_output.float().cpu())
        return normalize(torch.cat(parts), dim=-1)

    def to(self, device: torch.device) -> Dino:
        self.model.to(device)
        return self


def _pixels(picture: Image.Image) -> Tensor:
    """[3, CROP, CROP]: the short side scaled, the centre cropped, ImageNet's mean and deviation."""
    scale = SHORT_SIDE / min(picture.size)
    scaled = picture.convert("RGB").resize([round(scale * side) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = (scaled.width - CROP) // 2, (scaled.height - CROP) // 2
    image = np.asarray(scaled.crop((left, top, left + CROP, top + CROP)), np.float32) / 255
    return torch.from_numpy((image - MEAN) / DEVIATION).float().permute(2, 0, 1)
