"""The types of our own that run along a graph's links, and what the nodes share of their looks."""

from __future__ import annotations

from comfy_api.latest import io

EmbeddingSocket = io.Custom("TITRAIN_EMBEDDING")  # ti_train.embedding.Embedding
OptionsSocket = io.Custom("TITRAIN_OPTIONS")  # keywords of ti_train.config.TrainConfig
CATEGORY = "training/textual inversion"
