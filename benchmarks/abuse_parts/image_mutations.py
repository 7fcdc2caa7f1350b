"""Mutations of image files by their structure: one part changes, and lengths and checksums are right again."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

Part = tuple[bytes, bytes]  # kind, body
Mutation = Callable[[bytes, random.Random], bytes]


def png_parts(data: bytes) -> tuple[bytes, list[Part]]:
    parts, place = [], 8
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        parts.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += size + 12
    return data[:8], parts


def png(start: bytes, parts: list[Part]) -> bytes:
    crc = (struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts)
    sizes = (struct.pack(">I", len(body)) for _, body in parts)
    return start + b"".join(a + kind + body + b for a, (kind, body), b in zip(sizes, parts, crc, strict=True))


def riff_parts(data: bytes) -> tuple[bytes, list[Part]]:
    parts, place = [], 12
    while place + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, place + 4)
        parts.append((data[place : place + 4], data[place + 8 : place + 8 + size]))
        place += 8 + size + size % 2
    return data[:12], parts


def riff(start: bytes, parts: list[Part]) -> bytes:
    content = b"".join(kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) for kind, body in parts)
    return start[:4] + struct.pack("<I", 4 + len(content)) + start[8:12] + content


def box_parts(data: bytes) -> tuple[bytes, list[Part]]:
    """Of AVIF."""
    parts, place = [], 0
    while place + 8 <= len(data):
        size = max(8, struct.unpack_from(">I", data, place)[0])
        parts.append((data[place + 4 : place + 8], data[place + 8 : place + size]))
        place += size
    return b"", parts


def boxes(start: bytes, parts: list[Part]) -> bytes:
    return start + b"".join(struct.pack(">I", 8 + len(body)) + kind + body for kind, body in parts)


def jpeg_parts(data: bytes) -> tuple[bytes, list[Part]]:
    """The last part is the compressed image, which has no length."""
    parts, place = [], 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda" and place + 4 <= len(data):
        (size,) = struct.unpack_from(">H", data, place + 2)
        parts.append((data[place : place + 2], data[place + 4 : place + 2 + size]))
        place += 2 + max(2, size)
    return data[:2], [*parts, (b"", data[place:])]


def jpeg(start: bytes, parts: list[Part]) -> bytes:
    return start + b"".join(
        kind + struct.pack(">H", (2 + len(body)) % 2**16) * bool(kind) + body for kind, body in parts
    )


def tiff_parts(data: bytes) -> tuple[bytes, list[Part]]:
    """The entries of the first directory, and what is before and behind them."""
    order = "<" if data.startswith(b"II") else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    count = struct.unpack_from(order + "H", data, place)[0] if place + 2 <= len(data) else 0
    entries = [data[at : at + 12] for at in range(place + 2, min(len(data), place + 2 + 12 * count), 12)]
    end = place + 2 + 12 * len(entries)
    return data[: place + 2], [*((b"entry", entry) for entry in entries), (b"", data[end:])]


def tiff(start: bytes, parts: list[Part]) -> bytes:
    """Entries keep their length: offsets are from the file's beginning."""
    return start + b"".join(body[:12].ljust(12, b"\0") if kind else body for kind, body in parts)


KINDS: tuple[tuple[bytes, int, Any, Any], ...] = (
    (b"\x89PNG", 0, png_parts, png),
    (b"RIFF", 0, riff_parts, riff),
    (b"ftyp", 4, box_parts, boxes),
    (b"\xff\xd8", 0, jpeg_parts, jpeg),
    (b"II*\0", 0, tiff_parts, tiff),
    (b"MM\0*", 0, tiff_parts, tiff),
)


def image_mutation(data: bytes, change: Mutation) -> Mutation | None:
    """Changes, leaves out, doubles or exchanges parts of an image; None for other files. change: of a part's bytes."""
    found = (how for mark, place, *how in KINDS if data[place : place + len(mark)] == mark)
    how = next(found, None)
    return how and partial(_in_parts, *how, change)


def _in_parts(
    parts_of: Callable[[bytes], tuple[bytes, list[Part]]],
    joined: Callable[[bytes, list[Part]], bytes],
    change: Mutation,
    data: bytes,
    draw: random.Random,
) -> bytes:
    start, parts = parts_of(data)
    if not parts:
        return change(data, draw)
    place, other = (draw.randrange(len(parts)) for _ in range(2))
    kind, body = parts[place]
    match draw.randrange(6):
        case 0:
            del parts[place]
        case 1:
            parts.insert(other, (kind, body))
        case 2:
            parts[place], parts[other] = parts[other], parts[place]
        case _:
            parts[place] = kind, change(body, draw)
    return joined(start, parts)
