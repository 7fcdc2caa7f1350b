"""Load Embedding: a CLIP in which a placeholder stands for an embedding."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ...ti_train.editability import HELP, for_model
from ...ti_train.embedding import Embedding
from ...ti_train.errors import UserError
from ...ti_train.formats import load_embedding, read_embedding
from ...ti_train.hosts.comfy.encoders import vocabulary, widths
from ...ti_train.hosts.comfy.placeholders import with_embeddings
from ...ti_train.names import check_placeholder
from ..files import digest, embedding_files
from ..remarks import show
from ..sockets import CATEGORY, EmbeddingSocket, searched

NONE = "none"


def embedding_inputs() -> tuple[Any, Any, Any]:
    """The inputs that choose an embedding: a file, the socket used instead of it, and which one of the file's."""
    return (
        io.Combo.Input(
            "embedding_name",
            options=[NONE, *embedding_files()],
            default=NONE,
            tooltip="A file in the embeddings folder, in any tool's layout. Choose none if an embedding is connected.",
        ),
        EmbeddingSocket.Input(
            "embedding", optional=True, tooltip="An embedding from another node, used instead of the file."
        ),
        io.String.Input(
            "word",
            default="",
            optional=True,
            tooltip="Which embedding to use if the file holds several, as a LoRA may. If this is empty, the "
            "error message lists them.",
        ),
    )


def editability_input() -> Any:
    return io.Float.Input("editability", default=0.0, min=0.0, max=1.0, step=0.05, optional=True, tooltip=HELP)


class LoadEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        file, socket, word = embedding_inputs()
        return io.Schema(
            node_id="TITrain_LoadEmbedding",
            display_name="Load Embedding",
            category=CATEGORY,
            description="Outputs a CLIP in which a placeholder stands for an embedding. The input CLIP does not "
            "change.",
            **searched("textual inversion", "embedding loader", "use embedding"),
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder to add the embedding to. The output is a copy."),
                file,
                io.String.Input(
                    "placeholder",
                    default="*",
                    tooltip="The text that stands for the embedding in prompts, such as * or <my-cat> or my-cat. "
                    "Only whole words match. (my-cat:1.2) sets a weight.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Multiplies the vectors, -10 to 10. 1 = as trained, 0 = vectors of zeros, which still take "
                    "their tokens.",
                ),
                socket,
                word,
                editability_input(),
            ],
            outputs=[
                io.Clip.Output("CLIP", display_name="clip", tooltip="A CLIP in which the placeholder is the embedding.")
            ],
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
        editability: float = 0.0,
    ) -> io.NodeOutput:
        placeholder = check_placeholder(placeholder)
        found, remarks = chosen(embedding_name, embedding, word)
        used, unused = for_model(found, widths(clip), partial(vocabulary, clip), editability)
        remarks += unused
        if placeholder in getattr(clip.tokenizer, "ti_train_names", {}):
            remarks.append(
                f"{placeholder} stood for another embedding in this CLIP, which '{found.name}' replaces. Give each its "
                "own placeholder."
            )
        show(remarks)
        return io.NodeOutput(with_embeddings(clip, {placeholder: used.scaled(strength).vectors}, tell=show))


def chosen(name: str, embedding: Embedding | None, word: str = "") -> tuple[Embedding, list[str]]:
    """The embedding that is connected, else the one in a file; and what is not used of the inputs. Raises UserError."""
    if embedding is None:
        return read_embedding(embedding_path(name), word=word.strip()).embedding, []
    used = f"the connected embedding '{embedding.name}' is used"
    remarks = [] if name == NONE else [f"The file '{name}' has no effect: {used}."]
    return embedding, remarks + ([f"word '{word.strip()}' has no effect: {used}."] if word.strip() else [])


def embedding_named(name: str) -> Embedding:
    """Reads a file in the embeddings folders. Raises UserError."""
    return load_embedding(embedding_path(name))


def embedding_path(name: str) -> Path:
    """Raises UserError."""
    if name == NONE:
        raise UserError("No embedding is chosen. Choose a file, or connect a trained embedding.")
    path = folder_paths.get_full_path("embeddings", name)
    if path is None:
        raise UserError(
            f"There is no file '{name}' in ComfyUI's embeddings folders. Put it there, or choose another file."
        )
    return Path(path)
