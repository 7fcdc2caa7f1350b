"""Embedding files: reading and writing every layout.

layouts.py interprets a file's keys, reading.py opens files with limits, writing.py writes them; torch_files.py and
embedded_images.py handle the containers other than safetensors.
"""

from __future__ import annotations

from ..embedding import Embedding
from ..names import PICTURES, READABLE, file_names, names_file
from ..text import json_value
from .layouts import Reading, reads_syntax
from .modelspec import ARCHITECTURE, how_to_use, without_thumbnail
from .preview import preview_beside, put_preview
from .reading import load_embedding, read_embedding, read_embeddings
from .renaming import name_inside
from .writing import (
    ENDINGS,
    PRECISIONS,
    Layout,
    Precision,
    files_of,
    layout_for,
    rounding_error,
    save_embedding,
    write_embedding,
)

__all__ = [
    "ARCHITECTURE",
    "ENDINGS",
    "PICTURES",
    "PRECISIONS",
    "READABLE",
    "Layout",
    "Precision",
    "Reading",
    "config_of",
    "file_names",
    "files_of",
    "how_to_use",
    "layout_for",
    "load_embedding",
    "name_inside",
    "names_file",
    "preview_beside",
    "put_preview",
    "read_embedding",
    "read_embeddings",
    "reads_syntax",
    "rounding_error",
    "save_embedding",
    "without_thumbnail",
    "write_embedding",
]


def config_of(embedding: Embedding) -> dict[str, object]:
    """The training settings in an embedding's header, {} if there are none."""
    try:
        config = json_value(embedding.provenance.get("config", "{}"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}
