"""Another name for an embedding file whose name is also in it; the vectors stay bit for bit.

Hosts name an embedding after its file. But model libraries show the title in a safetensors file's header, and A1111
reads the name in an image. The names in other containers are read by nobody.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from ..files import write_atomically
from ..text import json_value
from .embedded_images import CHUNK
from .layouts import PROVENANCE
from .modelspec import PREFIX, USAGE, USAGES, named_keys

PNG = b"\x89PNG\r\n\x1a\n"


def name_inside(file: Path, run: str) -> None:
    """Writes the file's own name into it, if it contains a name; the file keeps its date. Raises OSError.

    run: the name in the settings of its run, which for a numbered copy is not the file's.
    """
    kinds = {".safetensors": _safetensors, ".png": _png}
    data, date = file.read_bytes(), file.stat()
    changed = kinds.get(file.suffix.lower(), _unchanged)(data, file.stem, run)
    if changed != data:
        write_atomically(file, changed)
        os.utime(file, ns=(date.st_atime_ns, date.st_mtime_ns))


def with_metadata(data: bytes, change: Callable[[dict[str, str]], Mapping[str, str]]) -> bytes:
    """A safetensors file with a changed header; its tensors stay bit for bit."""
    length = int.from_bytes(data[:8], "little")
    header = json_value(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    changed = change(metadata)
    if changed == metadata:
        return data
    packed = json.dumps(header | {"__metadata__": changed}, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)  # the format aligns the tensors
    return len(packed).to_bytes(8, "little") + packed + data[8 + length :]


def _unchanged(data: bytes, _name: str, _run: str) -> bytes:
    return data


def _safetensors(data: bytes, name: str, run: str) -> bytes:
    try:
        return with_metadata(data, lambda metadata: _renamed(metadata, name, run))
    except (ValueError, AttributeError, TypeError):  # damaged, or something else under this name
        return data


def _renamed(metadata: Mapping[str, str], name: str, run: str) -> dict[str, str]:
    before = metadata.get(PREFIX + "title", "")
    usage = next((each for each in USAGES if each.format(name=before) == metadata.get(USAGE)), USAGES[0])
    own = named_keys(name, usage) | {"name": name}
    renamed = {**metadata} | {key: value for key, value in own.items() if key in metadata}
    return renamed | ({"config": _json(metadata["config"], run)} if "config" in metadata else {})


def _json(text: str | bytes, name: str) -> str:
    """A JSON object with another name, if it has one; anything else as it is."""
    try:
        values = json_value(text)
    except ValueError:
        values = None
    if isinstance(values, dict) and "name" in values:
        return json.dumps(values | {"name": name})
    return text if isinstance(text, str) else text.decode("latin-1")


def _png(data: bytes, name: str, run: str) -> bytes:
    """The image with the names in its text chunks, A1111's and ours; everything else stays as it is."""
    parts, at = [data[: len(PNG)]], len(PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : end - 4]
        renamed = _text_chunk(kind, body, name, run)
        crc = zlib.crc32(kind + renamed).to_bytes(4, "big")
        parts.append(data[at:end] if renamed == body else len(renamed).to_bytes(4, "big") + kind + renamed + crc)
        at = end
    return b"".join(parts) if data.startswith(PNG) and at == len(data) else data


def _text_chunk(kind: bytes, body: bytes, name: str, run: str) -> bytes:
    ours, theirs = PROVENANCE.encode() + bytes(5), CHUNK.encode() + b"\0"  # uncompressed iTXt, in no language; tEXt
    try:
        if kind == b"tEXt" and body.startswith(theirs):
            content = base64.b64decode(body[len(theirs) :])
            return theirs + base64.b64encode(_json(content, name).encode("latin-1"))
        if kind == b"iTXt" and body.startswith(ours):
            return ours + json.dumps(_renamed(dict(json_value(body[len(ours) :])), name, run)).encode()
    except (ValueError, TypeError):  # not ours after all
        pass
    return body
