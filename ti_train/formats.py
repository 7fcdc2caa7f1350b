"""Embedding files. Written: safetensors with one tensor `emb_params`, or Stable Diffusion XL's `clip_l` and `clip_g`.

A further tensor would make A1111, Forge and diffusers refuse the file, so whatever else is worth keeping goes into the
header. Read: safetensors that hold one tensor under any name (kohya, diffusers, this project), or one for each encoder.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .embedding import SINGLE, Embedding
from .errors import UserError
from .files import write_atomically

SDXL = {"clip_l", "clip_g"}
LARGEST = 2**28  # bytes; a word of 75 vectors takes less than one megabyte


def save_embedding(embedding: Embedding, path: Path) -> None:
    """Writes the vectors [n, width] in fp32 and the provenance, all or nothing. Raises OSError.

    One encoder's are called `emb_params`, several bear their encoders' names.
    """
    vectors = embedding.vectors
    if len(vectors) == 1:
        vectors = {SINGLE: next(iter(vectors.values()))}
    tensors = {encoder: v.detach().float().cpu().contiguous() for encoder, v in vectors.items()}
    write_atomically(path, save(tensors, {**embedding.provenance, "name": embedding.name}))


def load_embedding(path: Path) -> Embedding:
    """Reads a safetensors file of one tensor [n, width] or [width], or of `clip_l` and `clip_g`. Raises UserError."""
    tensors, header = _read(path)
    if set(tensors) != SDXL and len(tensors) != 1:
        raise UserError(
            f"'{path.name}' holds {len(tensors)} tensors ({', '.join(sorted(tensors)[:5])}); "
            "an embedding has one, or Stable Diffusion XL's clip_l and clip_g."
        )
    for key, tensor in tensors.items():
        _check(tensor, key, path)
    vectors = {key: tensor.float().reshape(-1, tensor.shape[-1]) for key, tensor in tensors.items()}
    if len({v.shape[0] for v in vectors.values()}) > 1:
        counts = " and ".join(f"{v.shape[0]} for {key}" for key, v in vectors.items())
        raise UserError(f"'{path.name}' holds {counts}: a word has as many vectors for each text encoder.")
    if len(vectors) == 1:
        vectors = {SINGLE: next(iter(vectors.values()))}
    return Embedding(header.get("name", path.stem), vectors, header)


def _check(tensor: Tensor, key: str, path: Path) -> None:
    if tensor.ndim not in (1, 2) or 0 in tensor.shape or not tensor.is_floating_point():
        raise UserError(
            f"'{path.name}' holds '{key}' of shape {list(tensor.shape)} and type {str(tensor.dtype)[6:]}; "
            "an embedding is a list of vectors: [num_vectors, width] of floats."
        )
    if not tensor.isfinite().all():
        raise UserError(
            f"'{path.name}' holds values that are not numbers (NaN or infinity). Learn or download the word again."
        )


def layout_of(path: Path) -> str:
    """The layout of a file that load_embedding reads, in words."""
    tensors, _ = _read(path)
    keys = [f"'{key}'" for key in sorted(tensors, reverse=True)]
    return f"safetensors, {'one tensor' if len(keys) == 1 else 'tensors'} {' and '.join(keys)}"


def config_of(embedding: Embedding) -> dict[str, object]:
    """The settings that the word was learnt with, {} where the file does not say."""
    try:
        config = json.loads(embedding.provenance.get("config", "{}"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"There is no embedding file '{path}'.")
    if path.stat().st_size > LARGEST:
        raise UserError(
            f"'{path.name}' has {path.stat().st_size >> 20} MiB; an embedding has less than one. Is it a model?"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"'{path.name}' is not a readable safetensors file ({error}).") from None
