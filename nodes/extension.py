"""The nodes of this pack, for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .embeddings.compare import CompareEmbeddings
from .embeddings.evaluate import EvaluateEmbedding
from .embeddings.info import EmbeddingInfo
from .embeddings.load import LoadEmbedding
from .embeddings.merge import MergeEmbeddings
from .embeddings.save import SaveEmbedding
from .options import TrainingOptions
from .page.records import delete_unfinished
from .page.routes import register
from .train import TrainEmbedding
from .training_images import LoadTrainingImages

NODES = [
    TrainEmbedding,
    TrainingOptions,
    LoadTrainingImages,
    LoadEmbedding,
    SaveEmbedding,
    EmbeddingInfo,
    MergeEmbeddings,
    CompareEmbeddings,
    EvaluateEmbedding,
]


class TextualInversion(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> TextualInversion:
    delete_unfinished()
    register()
    return TextualInversion()
