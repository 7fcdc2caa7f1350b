"""Writing embedding files: each layout with exactly the keys that its readers look for, atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from PIL.Image import Image
from safetensors.torch import save
from torch import Tensor

from ..drawing.card import draw_card
from ..embedding import ONE_CLIP, SINGLE, Embedding, step_in
from ..errors import UserError
from ..files import write_atomically
from .embedded_images import card_bytes
from .layouts import EMP, ONETRAINER, OUT, PROVENANCE, SDXL, WITHOUT_VECTORS
from .modelspec import modelspec
from .renaming import with_metadata
from .torch_files import torch_bytes

Layout = Literal["safetensors", "a1111", "diffusers", "onetrainer", "png"]
Precision = Literal["fp32", "fp16", "bf16"]
ENDINGS: dict[str, str] = {
    "safetensors": ".safetensors",
    "a1111": ".pt",
    "diffusers": ".safetensors",
    "onetrainer": ".safetensors",
    "png": ".png",
}
PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ASTERISK = 265  # CLIP's token id of "*", which A1111 writes and no loader reads


def save_embedding(embedding: Embedding, path: Path) -> None:
    """Writes the vectors [n, width] as fp32 safetensors with the provenance, atomically. Raises OSError.

    The key of Stable Diffusion 1's and 2's encoder is `emb_params`; others are keyed by their names.
    """
    write_embedding(embedding, path)


def layout_for(path: Path, layout: str | None = None) -> str:
    """The layout for a file's extension, or the given one. Raises UserError if the two disagree."""
    fitting = [name for name, ending in ENDINGS.items() if ending == path.suffix.lower()]
    if not fitting or (layout is not None and layout not in fitting):
        wanted = ENDINGS[layout] if layout else ", ".join(dict.fromkeys(ENDINGS.values()))
        raise UserError(f"'{path.name}' has the extension '{path.suffix}'; {layout or 'an embedding'} needs {wanted}.")
    return layout or fitting[0]


def files_of(embedding: Embedding, path: Path, layout: str) -> list[Path]:
    """The files that write_embedding writes: for diffusers one per encoder, as its training scripts do."""
    second = path.with_name(f"{path.stem}_2{path.suffix}")
    return [path, second] if layout == "diffusers" and len(embedding.vectors) > 1 else [path]


def write_embedding(
    embedding: Embedding,
    path: Path,
    layout: str = "safetensors",
    dtype: torch.dtype = torch.float32,
    outputs: Mapping[str, Tensor] | None = None,
    picture: Image | None = None,
) -> list[Path]:
    """Writes an embedding in a layout of ENDINGS, and returns the paths (see files_of).

    outputs: OneTrainer's vectors for the encoders' output, which only its own layout can store. picture: that shows the
    embedding in the layout png; None: a card is drawn. Raises UserError for an embedding that the layout cannot store,
    and OSError.
    """
    vectors = {encoder: _cast(v, dtype) for encoder, v in embedding.vectors.items()}
    if len(vectors) > 1 and layout not in ("safetensors", "onetrainer") and set(vectors) != set(SDXL):
        raise UserError(
            f"The embedding '{embedding.name}' has vectors for {' + '.join(vectors)}. The layout '{layout}' "
            "supports one text encoder, or clip_l + clip_g of Stable Diffusion XL; 'safetensors' supports any."
        )
    header = {**embedding.provenance, "name": embedding.name}
    match layout:
        case "safetensors":
            tensors = _named(vectors)
            contents = [_file_of(tensors, header | modelspec(embedding, save(tensors)))]
        case "diffusers":
            ordered = [vectors[encoder] for encoder in SDXL] if len(vectors) > 1 else [_only(vectors)]
            contents = [_file_of({f"<{embedding.name}>": rows}, header) for rows in ordered]
        case "onetrainer":
            contents = [_file_of(_onetrainer(vectors, outputs or {}, dtype), header)]
        case "a1111":
            further = {PROVENANCE: json.dumps(header)} if len(vectors) == 1 else {}
            contents = [torch_bytes(_a1111(embedding, vectors) | further)]
        case "png":
            widened = {encoder: v.float() for encoder, v in vectors.items()}  # JSON has no half precision
            contents = [card_bytes(_a1111(embedding, widened), header, picture or _card(embedding))]
        case _:
            raise UserError(f"Unknown layout '{layout}'. Choose one of {', '.join(ENDINGS)}.")
    paths = files_of(embedding, path, layout)
    for file, content in zip(paths, contents, strict=True):
        write_atomically(file, content)
    return paths


def _file_of(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with the metadata in this order; the library's own differs from process to process."""
    return with_metadata(save(tensors), lambda _none: metadata)


def _cast(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    cast = vectors.detach().cpu().to(dtype).contiguous()
    if not cast.isfinite().all():
        raise UserError(
            f"Values of up to {float(vectors.abs().max()):.3g} overflow {str(dtype)[6:]}. Use bf16 or fp32."
        )
    return cast


def rounding_error(embedding: Embedding, dtype: torch.dtype) -> tuple[float, float]:
    """The rounding error of `dtype`: the largest of a value, and the largest of a vector relative to its norm."""
    pairs = [(v, v.to(dtype).float()) for v in embedding.vectors.values()]
    largest = max(float((v - cast).abs().max()) for v, cast in pairs)
    relative = max(float(((v - cast).norm(dim=1) / v.norm(dim=1).clamp_min(1e-12)).max()) for v, cast in pairs)
    return largest, relative


def _named(vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The keys of a safetensors file: those that ComfyUI looks for, and for Stable Diffusion 1 and 2 the common one."""
    if len(vectors) == 1 and set(vectors) <= ONE_CLIP:
        return {SINGLE: _only(vectors)}
    without = {other: width for encoder in vectors for other, width in WITHOUT_VECTORS.get(encoder, {}).items()}
    return vectors | {other: torch.empty(0, width) for other, width in without.items() if other not in vectors}


def _only(vectors: dict[str, Tensor]) -> Tensor:
    (rows,) = vectors.values()
    return rows


def _onetrainer(vectors: dict[str, Tensor], outputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    own = {encoder: key for key, encoder in ONETRAINER.items()}
    names = {encoder: EMP if set(vectors) <= ONE_CLIP else own.get(encoder, encoder) for encoder in vectors}
    unknown = set(names.values()) - {EMP, *SDXL, *ONETRAINER, "llama"}
    if unknown:
        raise UserError(f"OneTrainer has no embeddings for the text encoder {', '.join(sorted(unknown))}.")
    tensors = {names[encoder]: v for encoder, v in vectors.items()}
    return tensors | {names[encoder] + OUT: _cast(v, dtype) for encoder, v in outputs.items() if encoder in names}


def _a1111(embedding: Embedding, vectors: dict[str, Tensor]) -> dict[str, Any]:
    """What A1111 itself writes; for two encoders its loader accepts nothing but the two tensors."""
    if len(vectors) > 1:
        return {encoder: vectors[encoder] for encoder in SDXL}
    return {
        "string_to_token": {"*": ASTERISK},
        "string_to_param": {"*": _only(vectors)},
        "name": embedding.name,
        "step": step_in(embedding.provenance),
        "sd_checkpoint": embedding.provenance.get("sd_checkpoint"),
        "sd_checkpoint_name": embedding.provenance.get("sd_checkpoint_name"),
    }


def _card(embedding: Embedding) -> Image:
    sizes = " + ".join(f"{v.shape[0]} x {v.shape[1]}" for v in embedding.vectors.values())
    model = embedding.provenance.get("sd_checkpoint_name") or embedding.provenance.get("base_model", "unknown")
    lines = [f"vectors: {sizes}", f"model: {model}", f"step: {embedding.provenance.get('step', 'unknown')}"]
    return draw_card(embedding.name, lines, list(embedding.vectors.values()))
