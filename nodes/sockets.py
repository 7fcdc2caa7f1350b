"""Socket types of this pack, and its category in the node menu."""

from __future__ import annotations

from comfy_api.latest import io

EmbeddingSocket = io.Custom("TITRAIN_EMBEDDING")  # ti_train.embedding.Embedding
OptionsSocket = io.Custom("TITRAIN_OPTIONS")  # keywords of ti_train.training.config.TrainConfig
CATEGORY = "training/textual inversion"
