"""The list of nodes, as ComfyUI asks for it."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .train import TrainEmbedding

NODES = [TrainEmbedding]


class TextualInversion(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> TextualInversion:
    return TextualInversion()
