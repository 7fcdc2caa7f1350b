"""Identifying a checkpoint file from its safetensors header, without loading weights or running code.

The family is detected from the width of the U-Net's text conditioning; the prediction type from the metadata, and for
Stable Diffusion 2 from a weight, as in ComfyUI (comfy/supported_models.py).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ...errors import UserError
from ...files import safetensors_damage
from .original_layout import PARTS, UNET, canonical_names
from .tensor_files import Stored

CONFIGS = Path(__file__).parent / "configs"  # diffusers' configuration files, a folder for each kind
WANTED = (
    "a complete Stable Diffusion 1, 2 or XL model: one .safetensors file with U-Net, text encoder and VAE, "
    "or a folder in diffusers' layout"
)
PREDICTION_WEIGHT = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
PREDICTION_ALIASES = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}


@dataclass(frozen=True)
class Family:
    """A model family, and where its parts are in a checkpoint, by canonical names."""

    name: str
    parts: tuple[str, ...] = ("unet", "vae", "text_encoder")

    @property
    def prefixes(self) -> dict[str, str]:
        """Part of the pipeline -> prefix of its tensors' names."""
        return {part: PARTS[part] for part in self.parts}


FAMILIES = {
    "sd15": Family("Stable Diffusion 1"),
    "sd21": Family("Stable Diffusion 2"),
    "sdxl": Family("Stable Diffusion XL", ("unet", "vae", "text_encoder", "text_encoder_2")),
}
OTHERS = (  # pattern of a tensor name -> kind of file; the first match counts
    (r"(^|[._])(lora|hada|lokr|oft)_|\.lora\.", "a LoRA"),
    (r"^(emb_params|string_to_param|clip_[lg]|<.*>)$", "an embedding"),
    (r"^control_model\.|controlnet|input_hint_block", "a ControlNet"),
    (r"joint_blocks\.", "Stable Diffusion 3"),
    (r"(double|single)_blocks\.|single_transformer_blocks\.", "Flux"),
    (re.escape(UNET), "a model of another family"),
    (r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|mid|down)", "a VAE"),
    (r"(^|\.)(text_model|resblocks|token_embedding|SelfAttention)\.", "a text encoder"),
    (r"^(down_blocks|input_blocks)\.", "a U-Net alone"),
)
OTHER_WIDTHS = {1280: "the refiner of Stable Diffusion XL"}
OTHER_CHANNELS = {8: "a model that edits images by instruction", 9: "an inpainting model"}


@dataclass(frozen=True)
class Checkpoint:
    """The header of a safetensors file: shapes and names by canonical name, and the metadata."""

    path: Path
    names: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Reads the header. Raises UserError for other and incomplete files; pickles are never opened."""
        check_format(path)
        try:
            with safe_open(path, framework="pt") as file:
                names = canonical_names(file.keys())
                parts = {to: file.get_slice(name) for to, name in names.items()}
                shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
                return cls(path, names, shapes, file.metadata() or {})
        except SafetensorError as error:
            damage = safetensors_damage(path) or f"is incomplete or damaged ({error}). Download it again"
            raise UserError(f"'{path}' {damage}.") from None

    @property
    def stored(self) -> Stored:
        """The tensors by their canonical names."""
        return Stored({name: (self.path, own) for name, own in self.names.items()}, self.shapes)

    @cached_property
    def kind(self) -> str:
        """A key of FAMILIES. Raises UserError with what the file looks like instead, or what it lacks."""
        width = self._context_width()
        kind = next((kind for kind in FAMILIES if unet_config(kind)["cross_attention_dim"] == width), None)
        looks = self._unknown_family(width) if kind is None else self._variant() or self._missing_parts(FAMILIES[kind])
        if kind is None or looks:
            raise UserError(f"'{self.path}' looks like {looks}. This needs {WANTED}.")
        return kind

    def _variant(self) -> str | None:
        """An unsupported variant of a known family, or None."""
        channels = self._inputs(UNET + "input_blocks.0.0.weight")
        if channels not in (None, 4):
            return OTHER_CHANNELS.get(channels, f"a model with {channels} input channels")
        if {"edm_mean", "edm_vpred.sigma_max"} & self.shapes.keys():
            return "a model with the noise levels of EDM (such as Playground 2.5 or CosXL)"
        return None

    def _missing_parts(self, family: Family) -> str | None:
        """The family without the parts that the file lacks, or None if it is complete."""
        lacking = [part for part, prefix in family.prefixes.items() if not self.weights(prefix)]
        return f"{family.name} without its {' and '.join(lacking)}" if lacking else None

    def _unknown_family(self, width: int | None) -> str:
        if width is not None:
            return OTHER_WIDTHS.get(width, f"a model with text conditioning of width {width}")
        matches = (kind for pattern, kind in OTHERS if any(re.search(pattern, name) for name in self.shapes))
        return next(matches, "an unknown model")

    def _context_width(self) -> int | None:
        """Width of the U-Net's text conditioning; None without a U-Net in the original layout."""
        keys = (rf"{UNET}input_blocks.{i}.1.transformer_blocks.0.attn2.to_k.weight" for i in range(1, 9))
        return next((width for key in keys if (width := self._inputs(key))), None)

    def _inputs(self, name: str) -> int | None:
        """The number of inputs of a weight [out, in, ...]; None without it."""
        _, inputs, *_ = (*self.shapes.get(name, ()), None, None)
        return inputs

    def weights(self, prefix: str) -> int:
        """Number of elements in the tensors whose names start with `prefix`."""
        return sum(math.prod(shape) for name, shape in self.shapes.items() if name.startswith(prefix))

    @property
    def prediction(self) -> str:
        """epsilon or v_prediction, from metadata or weights; epsilon if they do not tell."""
        declared = PREDICTION_ALIASES.get(self.metadata.get("modelspec.prediction_type", ""))
        if declared or "v_pred" in self.shapes:
            return declared or "v_prediction"
        if self.kind == "sd21" and PREDICTION_WEIGHT in self.shapes:
            with safe_open(self.path, framework="pt") as file:
                spread = file.get_tensor(self.names[PREDICTION_WEIGHT]).float().std(unbiased=False)
            return "v_prediction" if spread > 0.09 else "epsilon"
        return "epsilon"

    def config(self, prediction: str) -> Path:
        """The folder with diffusers' configuration for this file."""
        own = CONFIGS / f"{self.kind}-v"  # Stable Diffusion 2 for v_prediction was trained at another size
        return own if prediction == "v_prediction" and own.is_dir() else CONFIGS / self.kind

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether the model was trained up to pure noise (Lin et al. 2023), which such files mark."""
        return "ztsnr" in self.shapes


def unet_config(kind: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS / kind / "unet" / "config.json").read_text(encoding="utf-8"))
    return config


def check_format(path: Path) -> None:
    """Raises UserError if a file is not safetensors by its first bytes, or has another extension."""
    with path.open("rb") as file:
        beginning = file.read(9)
    if beginning[8:] == b"{":  # after eight bytes with the header's length
        if path.suffix != ".safetensors":
            raise UserError(f"'{path}' is a safetensors file with another extension. Rename it to end in .safetensors.")
    elif beginning[:2] == b"PK" or beginning[:1] == b"\x80":
        raise UserError(
            f"'{path}' is a pickle, which can run code when it is loaded, so it is not loaded. "
            "Save the model as .safetensors (in ComfyUI: Load Checkpoint, Save Checkpoint)."
        )
    else:
        damage = safetensors_damage(path) or "is not a safetensors file, or it is damaged"
        raise UserError(f"'{path}' {damage}. This needs {WANTED}.")
