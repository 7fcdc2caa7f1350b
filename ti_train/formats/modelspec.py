"""Header keys of the ModelSpec (github.com/Stability-AI/ModelSpec), which model libraries and managers show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from ..embedding import Embedding
from ..reproducible import now
from .layouts import reads_syntax

VERSION = "1.0.1"
PREFIX = "modelspec."
ARCHITECTURE, USAGE = PREFIX + "architecture", PREFIX + "usage_hint"
THUMBNAIL = PREFIX + "thumbnail"
STABILITYS = "https://github.com/Stability-AI/generative-models"  # whose encoders the keys are for
COMFYUIS = "https://github.com/comfyanonymous/ComfyUI"  # whose names of encoders are the keys
BY_WIDTHS = {  # of the vectors; of a file that does not say it itself
    (768,): "stable-diffusion-v1",
    (1024,): "stable-diffusion-v2",
    (1280, 768): "stable-diffusion-xl-v1-base",
}
USAGES = (
    "In ComfyUI: embedding:{name}. In the WebUIs: {name}",
    "In ComfyUI: embedding:{name}",
    "In ComfyUI: Load Embedding with {name}",
)


def modelspec(embedding: Embedding, data: bytes) -> dict[str, str]:
    """The keys for an embedding. data: of a safetensors file.

    Without an identifier of its model, which the specification requires, those that are true of any file.
    """
    architecture = architecture_of(embedding)
    length = int.from_bytes(data[:8], "little")
    named = {
        "sai_model_spec": VERSION,
        "architecture": f"{architecture}/textual-inversion",
        "implementation": STABILITYS if architecture in BY_WIDTHS.values() else COMFYUIS,
    }
    keys = (named if architecture else {}) | {
        "date": embedding.provenance.get(PREFIX + "date") or now().isoformat(),
        "hash_sha256": f"0x{hashlib.sha256(data[8 + length :]).hexdigest()}",
    }
    named_after_it = named_keys(embedding.name, usage_of(embedding.vectors, architecture))
    return {PREFIX + key: value for key, value in keys.items()} | named_after_it


def architecture_of(embedding: Embedding) -> str:
    """The identifier of its model: that of its header, else by the widths of its vectors; "" if it is unknown."""
    widths = tuple(sorted((v.shape[1] for v in embedding.vectors.values()), reverse=True))
    said = embedding.provenance.get(ARCHITECTURE, "").partition("/")[0]
    return said or BY_WIDTHS.get(widths, "")


def usage_of(encoders: Iterable[str], architecture: str) -> str:
    """One of USAGES. The WebUIs' models are those that are known by their widths."""
    in_webuis, *in_comfyui = USAGES
    if architecture in BY_WIDTHS.values():
        return in_webuis
    return in_comfyui[0 if reads_syntax(encoders) else 1]


def how_to_use(embedding: Embedding, name: str) -> str:
    """How ComfyUI's prompts get an embedding, which is in the folder under this name."""
    return f"embedding:{name}" if reads_syntax(embedding.vectors) else f"Load Embedding: {name}"


def named_keys(name: str, usage: str) -> dict[str, str]:
    """The keys that contain the embedding's name. usage: one of USAGES."""
    return {PREFIX + "title": name, PREFIX + "trigger_phrase": name, USAGE: usage.format(name=name)}


def without_thumbnail(header: Mapping[str, str]) -> dict[str, str]:
    """For showing a header: a thumbnail has thousands of characters."""
    return {key: value for key, value in header.items() if key != THUMBNAIL}
