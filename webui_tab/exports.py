"""Converts and merges embeddings, for the API and the tab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, Field

from ..ti_train.describe import writing
from ..ti_train.editability import HELP, editable, merge_with_initial
from ..ti_train.embedding import Merge
from ..ti_train.errors import UserError
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
from ..ti_train.names import check_name
from . import embedding_files, folders, jobs
from .request import Request


class Output(Request):
    name: str = Field(
        description="File name in the embeddings folder, also with a subfolder (pets/my-cat).", min_length=1
    )
    format: Layout = Field(
        default="safetensors",
        description="safetensors: read by nearly all tools. a1111: its .pt. diffusers: its keys, two files for SDXL. "
        "onetrainer: its keys. png: an image that A1111 and Forge load as an embedding.",
    )
    precision: Precision = Field(
        default="fp32", description="Precision of the saved values. fp16 and bf16 halve the file, but round the values."
    )
    strength: float = Field(
        default=1.0, description="Multiplies the vectors in the file; 1 = as trained.", ge=-10, le=10
    )
    norm: float = Field(
        default=0.0, description="Norm that every vector is scaled to, before strength; 0 = as trained.", ge=0, le=100
    )
    overwrite: bool = Field(default=False, description="Replace a file of this name.")
    editability: float = Field(default=0.0, description=HELP, ge=0, le=1)


class ConvertRequest(Output):
    word: str = Field(description="The embedding to convert: its name, or its file in the embeddings folder.")
    second: str | None = Field(
        default=None, description="The second file of a Stable Diffusion XL embedding in diffusers' layout."
    )
    which: str | None = Field(default=None, description="Which embedding to use, if the file holds several.")


class MergeRequest(Output):
    words: list[str] = Field(description="Two or more embeddings of the same model family: names or files.")
    how: Merge = Field(
        default="concatenate",
        description="concatenate: the vectors of all, one embedding after the other. sum: weighted sum, vector by "
        "vector. interpolate: between the two, by spherical interpolation of the directions.",
    )
    weights: list[float] | None = Field(
        default=None, description="A weight for each embedding; for interpolate only the ratio matters. null = all 1."
    )


class Written(BaseModel):
    files: list[str] = Field(description="Paths in the embeddings folder.")
    text: str = Field(description="What was written, and notes about it.")


def convert(request: ConvertRequest) -> Written:
    """Writes an embedding in the layout of another tool. Raises UserError."""
    second = embedding_files.find(request.second) if request.second else None
    return write(read_embedding(embedding_files.find(request.word), second, request.which or None), request)


def merged(request: MergeRequest) -> Written:
    """Writes one embedding merged from several. Raises UserError."""
    request.check_lists()
    parts = [load_embedding(embedding_files.find(name)) for name in request.words]
    weights = request.weights or [1.0] * len(parts)
    whole = merge_with_initial(parts, request.how, weights, request.name)
    return write(Reading(whole, "merged", {}), request)


def write(reading: Reading, output: Output) -> Written:
    folder, layout = folders.embeddings(), output.format
    out = folder / (check_name(output.name) + ENDINGS[layout])
    turned = editable(reading.embedding, output.editability)
    embedding = replace(turned.scaled(output.strength, output.norm), name=out.stem)
    files = files_of(embedding, out, layout)
    check_overwrite(files, output.overwrite)
    with folders.writing(folder):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_embedding(embedding, out, layout, PRECISIONS[output.precision], reading.outputs)
    embedding_files.reload_later()
    names = [file.relative_to(folder).as_posix() for file in files]
    lines = writing(embedding, names, layout, output.precision, bool(reading.outputs))
    others = [
        row["file"] for row in embedding_files.listed() if row["name"] == embedding.name and row["file"] not in names
    ]
    if others:
        lines.append(f"There is {', '.join(others)} too: prompts use only one of the files of one name.")
    return Written(files=names, text="\n".join(lines))


def check_overwrite(files: Sequence[Path], overwrite: bool) -> None:
    """Raises UserError for a file that is being trained, or that exists and must not be overwritten."""
    for file in files:
        if any(job.file == file for job in jobs.active()):
            raise UserError(f"'{file.stem}' is being trained. Choose another name, or wait until the training ends.")
        if file.exists() and not overwrite:
            raise UserError(f"The file '{file.name}' exists. Choose another name, or set overwrite.")
