"""Merge Embeddings: one embedding from two."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ti_train.editability import merge_with_initial
from ...ti_train.embedding import MERGES, Embedding
from ..files import embedding_files
from ..remarks import show
from ..sockets import CATEGORY, EmbeddingSocket, searched
from .load import NONE, LoadEmbedding, chosen


class MergeEmbeddings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [NONE, *embedding_files()]
        return io.Schema(
            node_id="TITrain_MergeEmbeddings",
            display_name="Merge Embeddings",
            category=CATEGORY,
            description="Merges two embeddings of the same model family into one. It is not saved: use Save Embedding.",
            **searched("textual inversion", "combine embeddings"),
            inputs=[
                io.Combo.Input(
                    "embedding_name_1",
                    options=files,
                    default=NONE,
                    tooltip="The first embedding: a file in the embeddings folder. Choose none if an embedding is "
                    "connected.",
                ),
                io.Combo.Input(
                    "embedding_name_2",
                    options=files,
                    default=NONE,
                    tooltip="The second embedding: a file in the embeddings folder. Choose none if an embedding is "
                    "connected.",
                ),
                io.Combo.Input(
                    "how",
                    options=list(MERGES),
                    default=MERGES[0],
                    tooltip="concatenate: the vectors of both, one embedding after the other. sum: weighted sum, "
                    "vector by vector. interpolate: between the two, by spherical interpolation of the directions.",
                ),
                io.Float.Input(
                    "weight_1",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Weight of the first embedding, -10 to 10. For interpolate only the ratio of the two "
                    "weights matters, and none may be negative.",
                ),
                io.Float.Input(
                    "weight_2",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Weight of the second embedding, -10 to 10. 0 in interpolate gives the first embedding.",
                ),
                EmbeddingSocket.Input(
                    "embedding_1",
                    optional=True,
                    tooltip="An embedding from another node, used instead of the first file.",
                ),
                EmbeddingSocket.Input(
                    "embedding_2",
                    optional=True,
                    tooltip="An embedding from another node, used instead of the second file.",
                ),
            ],
            outputs=[
                EmbeddingSocket.Output(
                    "embedding",
                    display_name="embedding",
                    tooltip="The merged embedding, for Load Embedding or Save Embedding.",
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
        pairs = chosen(embedding_name_1, embedding_1), chosen(embedding_name_2, embedding_2)
        both = [embedding for embedding, _ in pairs]
        show([remark for _, remarks in pairs for remark in remarks])
        return io.NodeOutput(merge_with_initial(both, how, [weight_1, weight_2], f"{both[0].name}-{both[1].name}"))
