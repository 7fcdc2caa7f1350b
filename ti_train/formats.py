"""Embedding files. Written: safetensors with the one tensor `emb_params`, which every tool reads.

A second tensor key would make A1111, Forge and diffusers refuse the file, so whatever else is worth keeping goes into
the header. Read: safetensors that hold one tensor under any name (kohya, diffusers, this project).
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

LARGEST = 2**28  # bytes; a word of 75 vectors takes less than one megabyte


def save_embedding(embedding: Embedding, path: Path) -> None:
    """Writes `emb_params` [n, width] fp32 and the provenance, all or nothing. Raises OSError."""
    (vectors,) = embedding.vectors.values()
    header = {**embedding.provenance, "name": embedding.name}
    write_atomically(path, save({SINGLE: vectors.detach().float().cpu().contiguous()}, header))


def load_embedding(path: Path) -> Embedding:
    """Reads a safetensors file of one tensor [n, width] or [width], of any float type. Raises UserError."""
    tensors, header = _read(path)
    if len(tensors) != 1:
        raise UserError(
            f"'{path.name}' holds {len(tensors)} tensors ({', '.join(sorted(tensors)[:5])}); "
            "an embedding for one text encoder has one."
        )
    ((key, tensor),) = tensors.items()
    if tensor.ndim not in (1, 2) or 0 in tensor.shape or not tensor.is_floating_point():
        raise UserError(
            f"'{path.name}' holds '{key}' of shape {list(tensor.shape)} and type {str(tensor.dtype)[6:]}; "
            "an embedding is a list of vectors: [num_vectors, width] of floats."
        )
    vectors = tensor.float().reshape(-1, tensor.shape[-1])
    if not vectors.isfinite().all():
        raise UserError(
            f"'{path.name}' holds values that are not numbers (NaN or infinity). Learn or download the word again."
        )
    return Embedding(header.get("name", path.stem), {SINGLE: vectors}, header)


def layout_of(path: Path) -> str:
    """The layout of a file that load_embedding reads, in words."""
    tensors, _ = _read(path)
    return f"safetensors, one tensor '{next(iter(tensors))}'"


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
