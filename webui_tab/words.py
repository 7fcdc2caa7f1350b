"""The words of the embeddings folder: which there are, and what a word is like in the loaded model."""

from __future__ import annotations

from pathlib import Path

from modules import call_queue

from ..ti_train.describe import describe
from ..ti_train.errors import UserError
from ..ti_train.formats import load_embedding
from . import folders
from .hosts import connect


def listed() -> list[dict[str, object]]:
    """Every safetensors file of the folder: name, vectors, width, step, and why it cannot be read where it cannot."""
    rows = []
    for path in folders.word_files():
        row: dict[str, object] = {"name": path.stem, "file": str(path.relative_to(folders.embeddings()))}
        try:
            embedding = load_embedding(path)
        except UserError as error:
            rows.append(row | {"problem": str(error)})
            continue
        widths = [int(rows.shape[-1]) for rows in embedding.vectors.values()]
        step = embedding.provenance.get("step")
        rows.append(row | {"vectors": embedding.num_vectors, "widths": widths, "step": int(step) if step else None})
    return rows


def told(name: str) -> str:
    """Lines of text about a word, its nearest words in the loaded model among them. Waits its turn; UserError."""
    path = _file(name)
    embedding = load_embedding(path)
    with call_queue.queue_lock:
        host = connect()
        vectors = embedding.fitted_to(host.widths)
        return describe(embedding, vectors, {encoder: host.vocabulary(encoder) for encoder in host.widths})


def reread() -> None:
    """Has the WebUI's prompts know every word of the folder. Waits its turn."""
    with call_queue.queue_lock:
        connect().reread_words()


def _file(name: str) -> Path:
    file = folders.word_file(name)
    found = [path for path in folders.word_files() if path.name == file.name]
    if not found:
        raise UserError(f"There is no word '{name}' in '{folders.embeddings()}'.")
    return found[0]
