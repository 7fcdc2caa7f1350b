"""Save Embedding: writes an embedding to a file."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io, ui

from ...ti_train.describe import rounding
from ...ti_train.editability import editable
from ...ti_train.embedding import Embedding
from ...ti_train.formats import ENDINGS, PRECISIONS, files_of, how_to_use, write_embedding
from ...ti_train.names import bare_name, check_name
from ..files import NEW_NUMBER, REPLACE, embeddings_folder, free_name
from ..sockets import CATEGORY, EmbeddingSocket, searched
from .load import editability_input


class SaveEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_SaveEmbedding",
            display_name="Save Embedding",
            category=CATEGORY,
            description="Saves an embedding in the embeddings folder, in the layout of the tool that will read it.",
            **searched("textual inversion", "export embedding", "convert embedding"),
            is_output_node=True,
            inputs=[
                EmbeddingSocket.Input("embedding", tooltip="The embedding to save."),
                io.String.Input(
                    "name",
                    default="",
                    tooltip="File name, also with a subfolder (pets/my-cat). Empty = the embedding's own name.",
                ),
                io.Combo.Input(
                    "if_exists",
                    options=[NEW_NUMBER, REPLACE],
                    default=NEW_NUMBER,
                    tooltip="What to do if the name exists. new number: save name-2, name-3 ...; replace: overwrite "
                    "the file.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(ENDINGS),
                    default="safetensors",
                    optional=True,
                    tooltip="safetensors: read by nearly all tools. a1111: its .pt. diffusers: its keys, two files "
                    "for SDXL. onetrainer: its keys. png: an image that A1111 and Forge load as an embedding.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="fp32",
                    optional=True,
                    tooltip="Precision of the saved values. fp16 and bf16 halve the file of a few kilobytes, but "
                    "round the values.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    optional=True,
                    tooltip="Multiplies the vectors in the file, -10 to 10. 1 = as trained.",
                ),
                io.Float.Input(
                    "norm",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    optional=True,
                    tooltip="Norm that every vector is scaled to, before strength; 0 = as trained. Embedding Info "
                    "shows the norms of the model's own tokens.",
                ),
                editability_input(),
            ],
            outputs=[
                io.String.Output(
                    "embedding_name", display_name="embedding name", tooltip="The name for prompts: embedding:name."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        embedding: Embedding,
        name: str,
        if_exists: str,
        format: str = "safetensors",
        precision: str = "fp32",
        strength: float = 1.0,
        norm: float = 0.0,
        editability: float = 0.0,
    ) -> io.NodeOutput:
        name = check_name(name.strip() or embedding.name)
        folder, ending = embeddings_folder(), ENDINGS[format]
        scaled = editable(embedding, editability).scaled(strength, norm)
        if if_exists == NEW_NUMBER:
            parts = [
                path.stem.removeprefix(bare_name(name)) for path in files_of(scaled, folder / f"{name}{ending}", format)
            ]
            name = free_name(folder, name, parts)
        file = folder / f"{name}{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        paths = write_embedding(replace(scaled, name=file.stem), file, format, PRECISIONS[precision])
        lines = [how_to_use(scaled, name)]
        if format != "safetensors":
            lines = [path.relative_to(folder).as_posix() for path in paths]
        lines += [rounding(scaled, precision)] if precision != "fp32" else []
        return io.NodeOutput(name, ui=ui.PreviewText("\n".join(lines)))
