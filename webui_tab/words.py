"""The words of the embeddings folder: which there are, and what a word is like in the loaded model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from modules import call_queue

from ..ti_train.describe import describe
from ..ti_train.errors import UserError
from ..ti_train.formats import PICTURES, read_embedding
from . import folders
from .hosts import connect

Row = dict[str, Any]


def listed() -> list[Row]:
    """Every word of the folder: name, file, vectors, widths, step, and why it cannot be read where it cannot."""
    rows = []
    for path in folders.word_files():
        stat = path.stat()
        row = _row(path, stat.st_mtime_ns, stat.st_size)
        if row:
            rows.append({"file": path.relative_to(folders.embeddings()).as_posix()} | row)
    return rows


@lru_cache(maxsize=4096)
def _row(path: Path, _changed: int, _size: int) -> Row | None:
    """None for a picture that is no word: most of them show what a word beside them does."""
    picture = path.suffix.lower() in PICTURES
    if picture and path.stem.lower().endswith(".preview"):
        return None
    try:
        reading = read_embedding(path)
    except UserError as error:
        return None if picture else {"name": path.stem, "problem": str(error)}
    word = reading.embedding
    step = word.provenance.get("step", "")
    return {
        "name": word.name if picture else path.stem,  # as the WebUI calls them
        "layout": reading.layout,
        "vectors": word.num_vectors,
        "widths": [int(rows.shape[-1]) for rows in word.vectors.values()],
        "step": int(step) if step.isdecimal() else None,
    }


def find(name: str) -> Path:
    """The file of a word by its name or its file's, within the embeddings folder. Raises UserError."""
    rows = listed()
    found = [row for row in rows if row["file"] == name] or [
        row for row in rows if name in (row["name"], Path(row["file"]).name)
    ]
    if not found:
        raise UserError(f"There is no word '{name}' in '{folders.embeddings()}'.")
    if len(found) > 1:
        files = ", ".join(row["file"] for row in found)
        raise UserError(f"There are several words '{name}': {files}. Give one of these files.")
    return folders.embeddings() / str(found[0]["file"])


def told(name: str, which: str | None = None) -> str:
    """Lines of text about a word, its nearest words in the loaded model among them. Waits its turn; UserError."""
    reading = read_embedding(find(name), word=which)
    word = reading.embedding
    with call_queue.queue_lock:
        host = connect()
        vectors = word.fitted_to(host.widths)
        text = describe(word, vectors, {encoder: host.vocabulary(encoder) for encoder in host.widths})
    return f"{text}\nfile: {reading.layout}"


def reread() -> None:
    """Has the WebUI's prompts know every word of the folder. Waits its turn."""
    with call_queue.queue_lock:
        connect().reload_embeddings()
