"""Merge Embeddings: one word made of two."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ti_train.embedding import MERGES, Embedding, merge
from ..files import embedding_files
from ..sockets import CATEGORY, EmbeddingSocket
from .load import NONE, LoadEmbedding, embedding_named


class MergeEmbeddings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [NONE, *embedding_files()]
        return io.Schema(
            node_id="TITrain_MergeEmbeddings",
            display_name="Merge Embeddings",
            category=CATEGORY,
            description="Makes one word of two of the same family of models. Nothing is written: see Save Embedding.",
            inputs=[
                io.Combo.Input(
                    "embedding_name_1",
                    options=files,
                    default=NONE,
                    tooltip="The first word: a file of the embeddings folder; none where a word is connected.",
                ),
                io.Combo.Input(
                    "embedding_name_2",
                    options=files,
                    default=NONE,
                    tooltip="The second word: a file of the embeddings folder; none where a word is connected.",
                ),
                io.Combo.Input(
                    "how",
                    options=list(MERGES),
                    default=MERGES[0],
                    tooltip="concatenate: all vectors, one word after the other. sum: added up vector by vector. "
                    "interpolate: between the two, along the arc from one direction to the other.",
                ),
                io.Float.Input(
                    "weight_1",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Factor of the first word, -10 to 10; of interpolate only the ratio of the two counts.",
                ),
                io.Float.Input(
                    "weight_2",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Factor of the second word, -10 to 10; 0 in interpolate gives the first word.",
                ),
                EmbeddingSocket.Input(
                    "embedding_1", optional=True, tooltip="A word from another node, in the place of the first file."
                ),
                EmbeddingSocket.Input(
                    "embedding_2", optional=True, tooltip="A word from another node, in the place of the second file."
                ),
            ],
            outputs=[
                EmbeddingSocket.Output(
                    "embedding", display_name="embedding", tooltip="The merged word, for Load or Save Embedding."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, embedding_name_1: str = NONE, embedding_name_2: str = NONE, **_: Any) -> str:
        return "".join(LoadEmbedding.fingerprint_inputs(name) for name in (embedding_name_1, embedding_name_2))

    @classmethod
    def execute(
        cls,
        embedding_name_1: str,
        embedding_name_2: str,
        how: str,
        weight_1: float,
        weight_2: float,
        embedding_1: Embedding | None = None,
        embedding_2: Embedding | None = None,
    ) -> io.NodeOutput:
        words = [embedding_1 or embedding_named(embedding_name_1), embedding_2 or embedding_named(embedding_name_2)]
        return io.NodeOutput(merge(words, how, [weight_1, weight_2], f"{words[0].name}-{words[1].name}"))
