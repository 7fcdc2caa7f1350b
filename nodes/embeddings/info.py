"""Embedding Info: a report on an embedding."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...ti_train.describe import describe
from ...ti_train.drawing.card import card
from ...ti_train.embedding import Embedding
from ...ti_train.formats import read_embedding
from ...ti_train.hosts.comfy.encoders import vocabulary, widths
from ..sockets import CATEGORY, searched
from ..tensors import to_batch
from .load import NONE, LoadEmbedding, chosen, embedding_inputs, embedding_path


class EmbeddingInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_EmbeddingInfo",
            display_name="Embedding Info",
            category=CATEGORY,
            description="Shows what an embedding is: its nearest words in the model, the norms of its vectors, its "
            "training settings.",
            **searched("textual inversion", "inspect embedding", "nearest words"),
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder whose words the embedding is compared with."),
                *embedding_inputs(),
            ],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="The report, as text."),
                io.Image.Output("image", display_name="image", tooltip="The report, as an image."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, embedding_name: str = NONE, **_: Any) -> str:
        return str(LoadEmbedding.fingerprint_inputs(embedding_name))

    @classmethod
    def execute(
        cls, clip: Any, embedding_name: str, embedding: Embedding | None = None, word: str = ""
    ) -> io.NodeOutput:
        layout = ""
        remarks: list[str] = []
        if embedding is None:
            reading = read_embedding(embedding_path(embedding_name), word=word.strip())
            embedding, layout = reading.embedding, f"\nfile: {reading.layout}"
        else:
            embedding, remarks = chosen(embedding_name, embedding, word)
        vectors, remark = embedding.part_for(widths(clip))
        text = describe(embedding, vectors, {encoder: vocabulary(clip, encoder) for encoder in vectors}) + layout
        text = "\n".join([text, *remarks, *([remark] if remark else [])])
        return io.NodeOutput(text, to_batch([card(text)]), ui=ui.PreviewText(text))
