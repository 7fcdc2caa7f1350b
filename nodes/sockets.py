"""Socket types of this pack, its category in the node menu, and the words that find its nodes."""

from __future__ import annotations

from inspect import signature
from typing import Any

from comfy_api.latest import io

EmbeddingSocket = io.Custom("TITRAIN_EMBEDDING")  # ti_train.embedding.Embedding
OptionsSocket = io.Custom("TITRAIN_OPTIONS")  # keywords of ti_train.training.config.TrainConfig
CATEGORY = "training/textual inversion"


def searched(*words: str) -> dict[str, Any]:
    """The argument of a schema by which a search for these words finds the node; {} where ComfyUI has none (0.3.64)."""
    return {"search_aliases": list(words)} if "search_aliases" in signature(io.Schema).parameters else {}
