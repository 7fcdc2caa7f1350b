"""Save Embedding and Embedding Info: what becomes of a learnt word."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..ti_train.config import check_name
from ..ti_train.describe import card, describe
from ..ti_train.embedding import Embedding
from ..ti_train.formats import save_embedding
from ..ti_train.hosts.comfy_words import vocabulary, widths
from .files import NEW_NUMBER, REPLACE, SUFFIX, embedding_files, embeddings_folder, free_name
from .load import NONE, LoadEmbedding, read_embedding
from .sockets import CATEGORY, EmbeddingSocket
from .tensors import to_batch


class SaveEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_SaveEmbedding",
            display_name="Save Embedding",
            category=CATEGORY,
            description="Writes a word into the embeddings folder, as safetensors that every tool reads.",
            is_output_node=True,
            inputs=[
                EmbeddingSocket.Input("embedding", tooltip="The word to write."),
                io.String.Input("name", default="", tooltip="The file's name without ending. Empty: the word's own."),
                io.Combo.Input(
                    "if_exists",
                    options=[NEW_NUMBER, REPLACE],
                    default=NEW_NUMBER,
                    tooltip="If the name exists. new number: name-2, name-3 ...; replace: overwrite it.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "embedding_name", display_name="embedding name", tooltip="As embedding:name writes it in prompts."
                )
            ],
        )

    @classmethod
    def execute(cls, embedding: Embedding, name: str, if_exists: str) -> io.NodeOutput:
        name = name.strip() or embedding.name
        check_name(name)
        folder = embeddings_folder()
        file = free_name(folder, name) if if_exists == NEW_NUMBER else name
        folder.mkdir(parents=True, exist_ok=True)
        save_embedding(embedding, folder / f"{file}{SUFFIX}")
        return io.NodeOutput(file, ui=ui.PreviewText(f"embedding:{file}"))


class EmbeddingInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_EmbeddingInfo",
            display_name="Embedding Info",
            category=CATEGORY,
            description="What a word is: the nearest words of the model, the lengths of its vectors, its origin.",
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder whose words the learnt one is compared with."),
                io.Combo.Input(
                    "embedding_name",
                    options=[NONE, *embedding_files()],
                    default=NONE,
                    tooltip="A safetensors file of the embeddings folder; none where a learnt word is connected.",
                ),
                EmbeddingSocket.Input(
                    "embedding", optional=True, tooltip="A word from Train Embedding, in the place of the file."
                ),
            ],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="All of it, as text."),
                io.Image.Output("image", display_name="image", tooltip="The same as a picture."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, embedding_name: str = NONE, **_: Any) -> str:
        return str(LoadEmbedding.fingerprint_inputs(embedding_name))

    @classmethod
    def execute(cls, clip: Any, embedding_name: str, embedding: Embedding | None = None) -> io.NodeOutput:
        word = embedding or read_embedding(embedding_name)
        vectors = word.fitted_to(widths(clip))
        text = describe(word, vectors, {encoder: vocabulary(clip, encoder) for encoder in vectors})
        return io.NodeOutput(text, to_batch([card(text)]), ui=ui.PreviewText(text))
