"""Embeddings in images, in A1111's format (modules/textual_inversion/image_embedding.py).

Read: the text chunk `sd-ti-embedding` of a PNG, or, in images that lost their chunks, the panels at the left and right
edge, which hold the same data in the lower four bits of their bytes. Written: a PNG with the chunk.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import UserError
from .layouts import PROVENANCE, provenance_in

CHUNK = "sd-ti-embedding"
Pixels = np.ndarray[Any, Any]  # uint8
MOST_PIXELS = 2**23
LONGEST_DATA = 2**25  # characters of JSON


def read_picture(data: bytes) -> tuple[str, Any, dict[str, str]]:
    """The container, the stored object, and this project's provenance ({} if another program wrote the file).

    Raises UserError with a message that continues the file's name, or one of reading.DAMAGE.
    """
    with Image.open(io.BytesIO(data), formats=("PNG", "WEBP")) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise UserError(f"has {picture.width} x {picture.height} pixels, more than any embedding needs.")
        texts = getattr(picture, "text", {})
        if CHUNK in texts:
            return "PNG text chunk", from_json(base64.b64decode(texts[CHUNK])), provenance_in(texts)
        text = panels_text(np.asarray(picture.convert("RGB")))
        return f"{picture.format} panels", from_json(text), {}


def from_json(text: bytes) -> Any:
    """A1111's JSON: a tensor is {"TORCHTENSOR": [[...]]}."""
    return json.loads(text, object_hook=lambda d: _tensor(d["TORCHTENSOR"]) if "TORCHTENSOR" in d else d)


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).float()


def to_json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, default=lambda tensor: {"TORCHTENSOR": tensor.tolist()}).encode()


def panels_text(pixels: Pixels) -> bytes:
    """The data in the panels of an image [H, W, 3] uint8; a panel ends at a column whose lower four bits are zero."""
    lit: Any = (pixels > 0).all(axis=2)
    if not lit.any():
        raise UserError("is an image without an embedding.")
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    halves = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    dark = np.flatnonzero(halves.sum(axis=(0, 2)) == 0)
    if len(dark) < 2:
        raise UserError("is an image without an embedding.")
    low, high = _unmask(halves[:, : dark[0]]), _unmask(halves[:, dark[-1] + 1 :])
    if low.shape != high.shape:
        raise UserError("is an image without an embedding.")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress((high << 4 | low).tobytes(), LONGEST_DATA)
    except zlib.error:
        raise UserError("is an image without an embedding, or one that was scaled or saved as JPEG.") from None
    if unpacker.unconsumed_tail:
        raise UserError(f"unpacks to more than {LONGEST_DATA >> 20} MiB, more than any embedding.")
    return text


def _unmask(panel: Pixels) -> Pixels:
    """Reverts A1111's mask: x -> 1664525 x + 1013904223 modulo 2^32 starting at 0, each x modulo 255."""
    powers = np.cumprod(np.full(panel.size, 1664525, np.uint32), dtype=np.uint32)
    sums = np.cumsum(powers, dtype=np.uint32) - powers + np.uint32(1)
    mask = (np.uint32(1013904223) * sums) % 255 & 0x0F
    return panel ^ mask.astype(np.uint8).reshape(panel.shape)


def card_bytes(content: dict[str, Any], provenance: dict[str, str], picture: Image.Image) -> bytes:
    """The image as a PNG with the object in A1111's chunk."""
    texts, file = PngInfo(), io.BytesIO()
    texts.add_text(CHUNK, base64.b64encode(to_json(content)).decode())
    texts.add_itxt(PROVENANCE, json.dumps(provenance))
    picture.save(file, "PNG", pnginfo=texts)
    return file.getvalue()
