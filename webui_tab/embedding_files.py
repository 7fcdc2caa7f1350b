"""The files of the embeddings folder, and reports on them with the loaded model."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from modules import call_queue

from ..ti_train.describe import describe
from ..ti_train.embedding import step_in
from ..ti_train.errors import UserError
from ..ti_train.files import state_of
from ..ti_train.formats import PICTURES, read_embedding
from . import captioning, folders, jobs
from .hosts import connect

log = logging.getLogger("ti_train")
Row = dict[str, Any]
NOT_LOOKED_UP = "The nearest words need the model, which a training or captioning uses: ask again when it has ended."
RELOADED_LATER = "Prompts can use new files when the training or captioning has ended."

_reload_waits = threading.Lock()  # held while a reload waits for its turn


def listed() -> list[Row]:
    """Every embedding of the folder: name, file, layout, vectors, widths, step; or the problem of a file."""
    rows = []
    for path in folders.embedding_files():
        with suppress(FileNotFoundError):
            if (state := state_of(path)) and (row := _row(path, *state)):
                rows.append({"file": path.relative_to(folders.embeddings()).as_posix()} | row)
    return rows


@lru_cache(maxsize=4096)
def _row(path: Path, _changed: int, _size: int) -> Row | None:
    """None for an image that contains no embedding: most are previews of the embedding beside them.

    Raises FileNotFoundError for a file that is gone, which may come back as it was.
    """
    picture = path.suffix.lower() in PICTURES
    if picture and path.stem.lower().endswith(".preview"):
        return None
    try:
        reading = read_embedding(path)
    except UserError as error:
        path.stat()
        return None if picture else {"name": path.stem, "problem": str(error)}
    embedding = reading.embedding
    return {
        "name": embedding.name if picture else path.stem,  # as in the WebUI
        "layout": reading.layout,
        "vectors": embedding.num_vectors,
        "widths": [int(rows.shape[-1]) for rows in embedding.vectors.values()],
        "step": step_in(embedding.provenance),
    }


def find(name: str) -> Path:
    """The file of an embedding, by its name or file name in the embeddings folder. Raises UserError."""
    rows = listed()
    found = [row for row in rows if row["file"] == name] or [
        row for row in rows if name in (row["name"], Path(row["file"]).name, row["file"].rpartition(".")[0])
    ]
    if not found:
        raise UserError(f"There is no embedding '{name}' in '{folders.embeddings()}'.")
    if len(found) > 1:
        files = ", ".join(row["file"] for row in found)
        raise UserError(f"There are several embeddings '{name}': {files}. Give one of these files.")
    return folders.embeddings() / str(found[0]["file"])


def report(name: str, which: str | None = None) -> str:
    """The report on an embedding, with its nearest words in the loaded model. Raises UserError.

    Waits for a generation, but not for a training or captioning: then the report leaves out what needs the model.
    """
    reading = read_embedding(find(name), word=which)
    embedding = reading.embedding
    if _model_is_used():
        text = f"{describe(embedding, embedding.vectors, {})}\n{NOT_LOOKED_UP}"
    else:
        with call_queue.queue_lock:
            host = connect()
            vectors = embedding.fitted_to(host.widths)
            text = describe(embedding, vectors, {encoder: host.vocabulary(encoder) for encoder in host.widths})
    return f"{text}\nfile: {reading.layout}"


def reload() -> str:
    """Reloads the embeddings folder for prompts; returns a note if something has to end first. Raises UserError."""
    if _model_is_used():
        reload_later()
        return RELOADED_LATER
    with call_queue.queue_lock:
        connect().reload_embeddings()
    return ""


def _model_is_used() -> bool:
    """Whether a training or a captioning waits or runs: a request does not wait for hours."""
    return bool(jobs.active()) or captioning.active()


def reload_later() -> None:
    """Reloads the embeddings folder when it is the turn in the WebUI's queue; once for all that ask until then."""
    if _reload_waits.acquire(blocking=False):
        threading.Thread(target=_reload, daemon=True).start()


def _reload() -> None:
    with call_queue.queue_lock:
        _reload_waits.release()  # whoever asks from here on may have written a file that is not read
        try:
            connect().reload_embeddings()
        except UserError as error:  # the loaded model takes no embeddings; the next one reads the folder when it loads
            log.info("The embeddings folder was not reloaded: %s", error)
