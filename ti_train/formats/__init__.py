"""Embedding files: the one place that knows their layouts. Nodes, command line and training read and write here.

layouts.py tells what the keys of a file mean, reading.py opens files with limits, writing.py writes them;
torch_files.py and pictures.py know the two containers that are not safetensors.
"""

from __future__ import annotations

import json

from ..embedding import Embedding
from .layouts import Reading
from .reading import PICTURES, READABLE, load_embedding, names_file, read_word, read_words
from .writing import ENDINGS, PRECISIONS, files_of, layout_for, rounding_error, save_embedding, write_embedding

__all__ = [
    "ENDINGS",
    "PICTURES",
    "PRECISIONS",
    "READABLE",
    "Reading",
    "config_of",
    "files_of",
    "layout_for",
    "load_embedding",
    "names_file",
    "read_word",
    "read_words",
    "rounding_error",
    "save_embedding",
    "write_embedding",
]


def config_of(embedding: Embedding) -> dict[str, object]:
    """The settings that the word was learnt with, {} where the file does not say."""
    try:
        config = json.loads(embedding.provenance.get("config", "{}"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}
