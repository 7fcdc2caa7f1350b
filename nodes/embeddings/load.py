"""Load Embedding: a CLIP that knows an embedding of the embeddings folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ...ti_train.embedding import Embedding
from ...ti_train.errors import UserError
from ...ti_train.formats import load_embedding, read_embedding
from ...ti_train.hosts.comfy.placeholders import widths, with_embeddings
from ..files import digest, embedding_files
from ..sockets import CATEGORY, EmbeddingSocket

NONE = "none"


class LoadEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_LoadEmbedding",
            display_name="Load Embedding",
            category=CATEGORY,
            description="Gives a CLIP that reads a placeholder as a learnt word; the one that comes in is left alone.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder to teach the word to; a copy of it learns it."),
                io.Combo.Input(
                    "embedding_name",
                    options=[NONE, *embedding_files()],
                    default=NONE,
                    tooltip="A file of the embeddings folder, in any tool's layout; none where a word is connected.",
                ),
                io.String.Input(
                    "placeholder",
                    default="*",
                    tooltip="What stands for the word in prompts: any text, such as * or <my-cat> or my-cat. It is "
                    "found as a whole word only; (my-cat:1.2) weighs it.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Factor of the vectors, -10 to 10: 1 as learnt, 0 says nothing.",
                ),
                EmbeddingSocket.Input(
                    "embedding", optional=True, tooltip="A word from Train Embedding, in the place of the file."
                ),
                io.String.Input(
                    "word",
                    default="",
                    optional=True,
                    tooltip="Which word, where the file holds several, as a LoRA may. Left empty there, the error "
                    "lists them.",
                ),
            ],
            outputs=[io.Clip.Output("CLIP", display_name="clip", tooltip="The CLIP that reads the placeholder.")],
        )

    @classmethod
    def fingerprint_inputs(cls, embedding_name: str = NONE, **_: Any) -> str:
        path = folder_paths.get_full_path("embeddings", embedding_name)
        return digest([Path(path)]) if path else ""

    @classmethod
    def execute(
        cls,
        clip: Any,
        embedding_name: str,
        placeholder: str,
        strength: float,
        embedding: Embedding | None = None,
        word: str = "",
    ) -> io.NodeOutput:
        if not placeholder.strip():
            raise UserError("The placeholder is empty. Give the text that stands for the word, such as * or <my-cat>.")
        found = embedding or read_embedding(embedding_path(embedding_name), word=word.strip()).embedding
        vectors = found.scaled(strength).fitted_to(widths(clip))
        return io.NodeOutput(with_embeddings(clip, {placeholder.strip(): vectors}))


def embedding_named(name: str) -> Embedding:
    """A file of the embeddings folders. Raises UserError."""
    return load_embedding(embedding_path(name))


def embedding_path(name: str) -> Path:
    """Raises UserError."""
    if name == NONE:
        raise UserError("No embedding is chosen. Choose a file, or connect a learnt word.")
    path = folder_paths.get_full_path("embeddings", name)
    if path is None:
        raise UserError(f"There is no file '{name}' in ComfyUI's embeddings folders. Put it there, or name another.")
    return Path(path)
