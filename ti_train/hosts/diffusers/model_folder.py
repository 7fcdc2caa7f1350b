"""A model folder in diffusers' layout: what is checked before anything of it is loaded, and where its weights are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ...errors import UserError
from ...text import json_value
from ...user_files import text_bytes
from .checkpoint_file import WANTED
from .original_layout import Source

ONE_ENCODER = ("unet", "text_encoder", "tokenizer", "vae", "scheduler")
PARTS = {
    "StableDiffusionPipeline": ONE_ENCODER,
    "StableDiffusionXLPipeline": (*ONE_ENCODER, "text_encoder_2", "tokenizer_2"),
}
CLASSES = {
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "vae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny")),
    "text_encoder": ("transformers", ("CLIPTextModel", "CLIPTextModelWithProjection")),
    "text_encoder_2": ("transformers", ("CLIPTextModel", "CLIPTextModelWithProjection")),
}
WEIGHTS = re.compile(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors")
HALF = ".fp16"  # in the name of a file of half precision
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # of the first VAEs


@dataclass(frozen=True)
class ModelFolder:
    """The name of its pipeline's class, and library and class of each part with weights."""

    path: Path
    kind: str
    classes: Mapping[str, tuple[str, str]]

    @classmethod
    def read(cls, path: Path) -> ModelFolder:
        """Raises UserError if it is not a Stable Diffusion folder, or could run code."""
        index = path / "model_index.json"
        if not path.is_dir():
            raise UserError(f"'{path}' does not exist. This needs {WANTED}.")
        if not index.is_file():
            raise UserError(f"'{path}' is not a model folder: it has no model_index.json. This needs {WANTED}.")
        try:
            described = json_value(text_bytes(index))
            kind = str(described.get("_class_name"))
        except (UserError, ValueError, AttributeError, OSError) as error:
            raise UserError(f"'{index}' cannot be read ({error}). Copy the model folder again.") from None
        if kind not in PARTS:
            raise UserError(
                f"'{path}' is a {kind}; supported are {' and '.join(PARTS)} (Stable Diffusion 1, 2 and XL)."
            )
        missing = [part for part in PARTS[kind] if not (path / part).is_dir()]
        if missing:
            raise UserError(f"The model folder '{path}' lacks {', '.join(missing)}. Copy the model folder again.")
        code = next(path.rglob("*.py"), None)
        if code:  # diffusers 0.28 runs it without asking, if model_index.json says so
            raise UserError(
                f"The model folder '{path}' has Python code in it ('{code.relative_to(path)}'). Loading could run it. "
                "Remove it, or use a folder without code: Stable Diffusion 1, 2 and XL need none."
            )
        weighted = [part for part in PARTS[kind] if part in CLASSES]
        return cls(path, kind, {part: class_of(part, described.get(part), path) for part in weighted})

    def weight_files(self, part: str) -> list[Path]:
        """Those of full precision if there are any. Raises UserError if there are none, or only pickles."""
        folder = self.path / part
        files = [file for file in folder.glob("*.safetensors") if WEIGHTS.fullmatch(file.name.replace(HALF, ""))]
        if not files and list(folder.glob("*.bin")):
            raise UserError(
                f"The model folder '{self.path}' has its {part} as a pickle (.bin), which can run code when it is "
                "loaded, so it is not loaded. Use the model's .safetensors files."
            )
        if not files:
            raise UserError(f"The model folder '{self.path}' has no weights in '{part}'. Copy the model folder again.")
        return sorted(file for file in files if HALF not in file.name) or sorted(files)


def class_of(part: str, described: object, path: Path) -> tuple[str, str]:
    """Library and class of a part by model_index.json. Raises UserError for others than ours."""
    library, names = CLASSES[part]
    match described:
        case [str(its), str(name)] if its == library and name in names:
            return library, name
    index = path / "model_index.json"
    raise UserError(f"'{index}' has {described} as its {part}; supported are {' and '.join(names)}.")


def folder_sources(module: nn.Module, there: Mapping[str, tuple[int, ...]]) -> dict[str, Source]:
    """Key of a module's weight -> its place. there: the tensors that are stored."""
    keys = (key for key, _ in module.named_parameters())
    return {key: Source(next((name for name in spellings(key) if name in there), key)) for key in keys}


def spellings(key: str) -> tuple[str, ...]:
    """The names of a weight with the library's versions."""
    old = key
    for new, name in OLD_ATTENTION.items():
        old = old.replace(f".attentions.0.{new}.", f".attentions.0.{name}.")
    return key, "text_model." + key, key.removeprefix("text_model."), old
