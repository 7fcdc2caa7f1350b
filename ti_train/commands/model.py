"""The model of a command: its arguments, and loading it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..editability import for_model
from ..embedding import Embedding
from ..host import Host, Vectors

if TYPE_CHECKING:
    from ..hosts.diffusers.host import DiffusersHost

MODEL = "a Stable Diffusion 1, 2 or XL model: a .safetensors checkpoint, or a folder in diffusers' layout"
PREDICTION_TYPES = ("epsilon", "v_prediction")
PREDICTION = "the model's prediction type, if its own setting is missing or wrong (default: its own)"
DEVICE = "auto, cuda, mps, xpu or cpu (default: %(default)s)"


def add_model_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--model", type=Path, required=True, help=MODEL)
    add("--prediction-type", choices=PREDICTION_TYPES, help=PREDICTION)
    add("--device", default="auto", help=DEVICE)


def load_model(a: argparse.Namespace) -> DiffusersHost:
    """Raises UserError."""
    from ..hosts.diffusers.host import DiffusersHost

    return DiffusersHost.load(a.model, a.device, prediction=a.prediction_type)


def used_vectors(embedding: Embedding, host: Host, editability: float = 0.0) -> tuple[Vectors, list[str]]:
    """The vectors that the model uses, and what is not used. Raises UserError if nothing fits."""
    used, remarks = for_model(embedding, host.widths, host.vocabulary, editability)
    return used.vectors, remarks
