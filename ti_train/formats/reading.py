"""Reading embedding files of any layout, within limits, and with a message for everything that can be wrong."""

from __future__ import annotations

import math
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
from . import embedded_images, torch_files
from .layouts import Reading, joined, provenance_in, readings

IN_PROMPTS = "embedding:"  # before an embedding's name in ComfyUI's prompts
PICTURES = (".png", ".webp")
READABLE = (".safetensors", ".pt", ".bin", *PICTURES)
LARGEST = 2**24  # bytes of vectors or of a file; 75 vectors for three encoders take less than two megabytes
MOST_KEYS, MOST_LISTED = 64, 10
DAMAGE = (  # what the parsers of safetensors, pickles, zips, PNGs and JSON raise for invalid data
    *(SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, DecompressionBombError),
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(RuntimeError, SyntaxError, MemoryError),
)


def names_file(text: str) -> bool:
    """Whether a text is the name of an embedding file rather than a word or phrase: by its extension, or embedding:."""
    return text.lower().startswith(IN_PROMPTS) or text.lower().endswith(READABLE)


def file_names(text: str) -> list[str]:
    """The names that the file of such a text may have: embedding:NAME may leave out the extension, as in a prompt."""
    name = text[len(IN_PROMPTS) :].strip() if text.lower().startswith(IN_PROMPTS) else text
    return [name] if name.lower().endswith(READABLE) else [name + extension for extension in READABLE]


def load_embedding(path: Path) -> Embedding:
    """The embedding in a file of any layout. Raises UserError."""
    return read_embedding(path).embedding


def read_embedding(path: Path, second: Path | None = None, word: str | None = None) -> Reading:
    """The embedding in a file, or in the two files of diffusers for Stable Diffusion XL.

    word: the name of one of several in the file. Raises UserError, with all readings if there are several.
    """
    found = read_embeddings(path)
    chosen = [reading for reading in found if reading.embedding.name == word] if word else found
    if len(chosen) != 1:
        listed = "; ".join(f"'{r.embedding.name}' ({_size(r)})" for r in found[:MOST_LISTED])
        listed = _printable(listed + (" ..." if len(found) > MOST_LISTED else ""))
        asked = f"no embedding '{word}'" if word else f"{len(found)} embeddings, or one embedding in unnamed parts"
        raise UserError(f"'{path.name}' holds {asked}. It can be read as: {listed}. Choose one by its name.")
    if second is None:
        return chosen[0]
    return joined(chosen[0], read_embedding(second))


def _size(reading: Reading) -> str:
    widths = " + ".join(str(v.shape[1]) for v in reading.embedding.vectors.values())
    return f"{reading.embedding.num_vectors} vector(s) of {widths}"


def read_embeddings(path: Path) -> list[Reading]:
    """Every embedding in a file. Raises UserError."""
    if not path.is_file():
        raise UserError(f"The embedding file '{path}' does not exist. Check its name and folder.")
    try:
        with path.open("rb") as file:
            start = file.read(16)
        container, content, header = _open(path, start)
        return readings(content, container, path.stem, header)
    except UserError as error:
        raise UserError(f"'{path.name}' {_printable(str(error))}") from None
    except DAMAGE as error:
        said = _printable(f"{type(error).__name__} {error}")[:200]
        raise UserError(
            f"'{path.name}' is not a readable embedding, or it is damaged ({said}). Save or download it again."
        ) from None


def _printable(text: str) -> str:
    """On one line, without control characters: tensor names come from the file."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _open(path: Path, start: bytes) -> tuple[str, Any, dict[str, str]]:
    """The container's name, the content and the header. Detected by the first bytes: extensions are often wrong."""
    picture = start.startswith(b"\x89PNG") or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
    pickled = start.startswith(b"PK\x03\x04") or (start.startswith(b"\x80") and start[8:9] != b"{")
    if not picture and not pickled:
        return "safetensors", *_read_safetensors(path)
    if path.stat().st_size > LARGEST:
        raise UserError(f"has {path.stat().st_size >> 20} MiB; an embedding has less than one. Is it a model?")
    data = path.read_bytes()
    if picture:
        return embedded_images.read_picture(data)
    content = torch_files.read_torch(data)
    return "torch.save", content, provenance_in(content)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        keys = list(file.keys())
        wanted = [key for key in keys if key.startswith("bundle_emb.")] or keys
        if len(wanted) > MOST_KEYS:
            raise UserError(f"holds {len(keys)} tensors ({', '.join(sorted(keys)[:3])} ...). Is it a model?")
        if sum(math.prod(file.get_slice(key).get_shape()) for key in wanted) > LARGEST // 4:
            raise UserError(
                f"holds more than {LARGEST >> 20} MiB of tensors; an embedding has less than one. Is it a model?"
            )
        return {key: file.get_tensor(key) for key in wanted}, dict(file.metadata() or {})
