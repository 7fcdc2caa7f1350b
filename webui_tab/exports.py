"""New files of words that there are: written in another layout, or made of several. For the API and the tab alike."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, Field

from ..ti_train.describe import writing
from ..ti_train.embedding import Merge, merge
from ..ti_train.errors import UserError
from ..ti_train.files import check_name
from ..ti_train.formats import (
    ENDINGS,
    PRECISIONS,
    Layout,
    Precision,
    Reading,
    files_of,
    load_embedding,
    read_embedding,
    write_embedding,
)
from . import folders, jobs, words

log = logging.getLogger("ti_train")


class Output(BaseModel):
    name: str = Field(description="The new file's name without ending, in the embeddings folder.", min_length=1)
    format: Layout = Field(
        default="safetensors",
        description="safetensors: read by nearly all. a1111: its .pt. diffusers: its keys, two files for SDXL. "
        "onetrainer: its keys. png: a picture that A1111 and Forge read as a word.",
    )
    precision: Precision = Field(
        default="fp32", description="Of the values written. fp16 and bf16 halve a file of few kilobytes, and round."
    )
    strength: float = Field(default=1.0, description="Factor of the vectors in the file; 1: as learnt.", ge=-10, le=10)
    norm: float = Field(
        default=0.0, description="Length that every vector is brought to, before strength; 0: as learnt.", ge=0, le=100
    )
    overwrite: bool = Field(default=False, description="Replace a file of this name.")


class ConvertRequest(Output):
    word: str = Field(description="The word to write: its name, or its file in the embeddings folder.")
    second: str | None = Field(
        default=None, description="The second file of Stable Diffusion XL in diffusers' layout, where there is one."
    )
    which: str | None = Field(default=None, description="Which word, where a file holds several.")


class MergeRequest(Output):
    words: list[str] = Field(description="Two words or more of the same family of models: names, or files.")
    how: Merge = Field(
        default="concatenate",
        description="concatenate: all vectors, one word after the other. sum: added up vector by vector. "
        "interpolate: between the two, along the arc from one direction to the other.",
    )
    weights: list[float] | None = Field(
        default=None, description="A factor for each word; of interpolate only the ratio counts. None: all 1."
    )


class Written(BaseModel):
    files: list[str] = Field(description="Within the embeddings folder.")
    text: str = Field(description="What was written, and what the user should know about it.")


def convert(request: ConvertRequest) -> Written:
    """Writes a word of the embeddings folder in the layout of another tool. Raises UserError."""
    second = words.find(request.second) if request.second else None
    return write(read_embedding(words.find(request.word), second, request.which or None), request)


def merged(request: MergeRequest) -> Written:
    """Writes one word made of several. Raises UserError."""
    parts = [load_embedding(words.find(name)) for name in request.words]
    weights = request.weights or [1.0] * len(parts)
    return write(Reading(merge(parts, request.how, weights, request.name), "merged", {}), request)


def write(reading: Reading, output: Output) -> Written:
    check_name(output.name)
    folder, layout = folders.embeddings(), output.format
    word = replace(reading.embedding.scaled(output.strength, output.norm), name=output.name)
    out = folder / (output.name + ENDINGS[layout])
    files = files_of(word, out, layout)
    refuse(files, output.overwrite)
    try:
        write_embedding(word, out, layout, PRECISIONS[output.precision], reading.outputs)
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written to ({error.strerror or error}). Make room.") from None
    threading.Thread(target=know, daemon=True).start()
    names = [file.name for file in files]
    lines = writing(word, names, layout, output.precision, bool(reading.outputs))
    others = [row["file"] for row in words.listed() if row["name"] == output.name and row["file"] not in names]
    if others:
        lines.append(f"There is {', '.join(others)} too: prompts know only one of the words of one name.")
    return Written(files=names, text="\n".join(lines))


def refuse(files: Sequence[Path], overwrite: bool) -> None:
    """Raises UserError for a file that shall stay."""
    for file in files:
        if any(job.file == file for job in jobs.active()):
            raise UserError(f"The word '{file.stem}' is being trained. Choose another name, or wait for its end.")
        if file.exists() and not overwrite:
            raise UserError(f"The file '{file.name}' exists. Choose another name, or have it overwritten.")


def know() -> None:
    """Has prompts know the new word, after the generations that are queued."""
    try:
        words.reread()
    except UserError as error:  # no model that takes words; a later one reads the folder when it is loaded
        log.info("The embeddings folder was not read anew: %s", error)
