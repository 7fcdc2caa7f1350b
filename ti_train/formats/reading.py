"""Reading embedding files of any layout, within limits, and with a message for everything that can be wrong."""

from __future__ import annotations

import math
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from PIL.Image import DecompressionBombError
from safetensors import SafetensorError, safe_open

from ..embedding import Embedding
from ..errors import UserError
from ..files import safetensors_damage
from . import embedded_images, torch_files
from .layouts import Reading, has_vectors, joined, name_inside, names_vectors, provenance_in, readings

LARGEST = 2**24  # bytes of vectors or of a file; 75 vectors for three encoders take less than two megabytes
MOST_KEYS, MOST_LISTED = 64, 10
MARKED = "<embed>"  # what a LoRA of cloneofsimo's trainer says of its embeddings in its header
IMAGES = ("PNG", "WEBP")
DAMAGE = (  # what the parsers of safetensors, pickles, zips, PNGs and JSON raise for invalid data
    *(SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, DecompressionBombError),
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(RuntimeError, SyntaxError, MemoryError),
)


def load_embedding(path: Path) -> Embedding:
    """The embedding in a file of any layout. Raises UserError."""
    return read_embedding(path).embedding


def read_embedding(path: Path, second: Path | None = None, word: str | None = None) -> Reading:
    """The embedding in a file, or in the two files of diffusers for Stable Diffusion XL.

    word: the name of one of several in the file. Raises UserError, with all readings if there are several.
    """
    found = read_embeddings(path, word)
    chosen = [reading for reading in found if reading.embedding.name == word] if word else found
    if len(chosen) != 1:
        listed = "; ".join(f"'{r.embedding.name}' ({_size(r)})" for r in found[:MOST_LISTED])
        listed += " ..." if len(found) > MOST_LISTED else ""
        asked = f"no embedding '{word}'" if word else f"{len(found)} embeddings, or one embedding in unnamed parts"
        raise UserError(f"'{path.name}' holds {asked}. It can be read as: {listed}. Choose one by its name.")
    if second is None:
        return chosen[0]
    return joined(chosen[0], read_embedding(second))


def _size(reading: Reading) -> str:
    widths = " + ".join(str(v.shape[1]) for v in reading.embedding.vectors.values())
    return f"{reading.embedding.num_vectors} vector(s) of {widths}"


def read_embeddings(path: Path, word: str | None = None) -> list[Reading]:
    """Every embedding in a file, or only `word` if the file has it. Raises UserError."""
    if not os.path.isfile(path):  # False too for what no name can be
        raise UserError(f"The embedding file '{path}' does not exist. Check its name and folder.")
    try:
        with path.open("rb") as file:
            start = file.read(16)
        container, content, header = _open(path, start, word)
        name = name_inside(content) if container.startswith(IMAGES) else None
        return readings(content, container, name or path.stem, header, word)
    except UserError as error:
        raise UserError(f"'{path.name}' {error}") from None
    except DAMAGE as error:
        said = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UserError(
            f"'{path.name}' is not a readable embedding, or it is damaged ({said}). Save or download it again."
        ) from None


def _open(path: Path, start: bytes, word: str | None) -> tuple[str, Any, dict[str, str]]:
    """The container's name, the content and the header. Detected by the first bytes: extensions are often wrong."""
    picture = start.startswith(b"\x89PNG") or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
    pickled = start.startswith(b"PK\x03\x04") or (start.startswith(b"\x80") and start[8:9] != b"{")
    if not picture and not pickled:
        if start[8:9] == b"{" and path.stat().st_size > int.from_bytes(start[:8], "little") > LARGEST:
            raise UserError(f"has a header of more than {LARGEST >> 20} MiB. Is it a model?")
        if said := safetensors_damage(path):
            raise UserError(f"{said}.")
        return "safetensors", *_read_safetensors(path, word)
    if path.stat().st_size > LARGEST:
        raise UserError(f"has {path.stat().st_size >> 20} MiB; an embedding has less than one. Is it a model?")
    data = path.read_bytes()
    if picture:
        return embedded_images.read_picture(data)
    content = torch_files.read_torch(data)
    return "torch.save", content, provenance_in(content)


def _floats(part: Any) -> bool:
    return str(part.get_dtype()).startswith(("F", "BF"))


def _read_safetensors(path: Path, word: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Only the tensors that may be vectors are read: beside them a file may have the weights of a LoRA."""
    with safe_open(path, framework="pt") as file:
        header, parts = dict(file.metadata() or {}), {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        like_vectors = {key for key, part in parts.items() if has_vectors(part.get_shape(), _floats(part))}
        keys = [key for key in parts if names_vectors(key) or key in like_vectors]
        few = len(keys) <= MOST_KEYS
        wanted = (
            [key for key in keys if key.startswith("bundle_emb.")]
            or [key for key in keys if header.get(key) == MARKED]
            or [key for key in keys if few or names_vectors(key) or key == word]
            or list(parts)
        )
        if len(wanted) > MOST_KEYS:
            raise UserError(f"holds {len(parts)} tensors ({', '.join(sorted(parts)[:3])} ...). Is it a model?")
        if sum(math.prod(parts[key].get_shape()) for key in wanted) > LARGEST // 4:
            raise UserError(
                f"holds more than {LARGEST >> 20} MiB of tensors; an embedding has less than one. Is it a model?"
            )
        return {key: file.get_tensor(key).clone() for key in wanted}, header  # not views of a file that may change
