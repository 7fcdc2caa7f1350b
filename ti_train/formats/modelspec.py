"""Header keys of the ModelSpec (github.com/Stability-AI/ModelSpec), which model libraries and managers show."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ..embedding import Embedding
from ..reproducible import now

VERSION = "1.0.1"
PREFIX = "modelspec."
IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"  # whose encoders the keys are for
THUMBNAIL = PREFIX + "thumbnail"
ARCHITECTURES = {  # widths of the vectors -> the specification's name of the model
    (768,): "stable-diffusion-v1",
    (1024,): "stable-diffusion-v2",
    (1280, 768): "stable-diffusion-xl-v1-base",
}


def modelspec(embedding: Embedding, data: bytes) -> dict[str, str]:
    """The keys for an embedding, {} for a model that the specification does not name. data: of a safetensors file."""
    widths = tuple(sorted((v.shape[1] for v in embedding.vectors.values()), reverse=True))
    if widths not in ARCHITECTURES:
        return {}
    length = int.from_bytes(data[:8], "little")
    keys = {
        "sai_model_spec": VERSION,
        "architecture": f"{ARCHITECTURES[widths]}/textual-inversion",
        "implementation": IMPLEMENTATION,
        **named_keys(embedding.name),
        "date": embedding.provenance.get(PREFIX + "date") or now().isoformat(),
        "hash_sha256": f"0x{hashlib.sha256(data[8 + length :]).hexdigest()}",
    }
    return {PREFIX + key: value for key, value in keys.items()}


def named_keys(name: str) -> dict[str, str]:
    """The keys that contain the embedding's name."""
    return {
        "title": name,
        "trigger_phrase": name,
        "usage_hint": f"In ComfyUI: embedding:{name}. In the WebUIs: {name}",
    }


def without_thumbnail(header: Mapping[str, str]) -> dict[str, str]:
    """For showing a header: a thumbnail has thousands of characters."""
    return {key: value for key, value in header.items() if key != THUMBNAIL}
