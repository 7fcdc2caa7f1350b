"""Mutations of files: of their bytes, and of what their structure says."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

INTERESTING = (
    *(
        b"\0",
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        b"-1",
        b"1e999",
        b"NaN",
        b"\x80\x02",
        b"cos\nsystem\n",
        b"R",
        b"[",
        b"{",
    ),
    *(b'"', b"\r", b"\n", b",", b"\xef\xbb\xbf", b"\xff\xfe", b"\\ud83d", b"9" * 5000, b"[" * 5000, b"x" * 5000),
)
NUMBERS = (0, -1, 1, 2**31, 2**53, 2**64, -(2**63), 1e308, float("inf"), float("nan"))
VALUES = (*NUMBERS, None, True, "", "x" * 5000, "\ud83d", "\0", [], [[]], {}, {"": None})
Mutation = Callable[[bytes, random.Random], bytes]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """One to eight changes: a bit, a byte, a part left out, doubled, moved, replaced by what means much, the end."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        place, length = draw.randrange(len(data) + 1), draw.choice((1, 2, 4, 8, 64))
        part = bytes(data[place : place + length])
        match draw.randrange(7):
            case 0 if part:
                data[place] ^= 1 << draw.randrange(8)
            case 1 if part:
                data[place] = draw.randrange(256)
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = part
            case 4:
                other = draw.randrange(len(data) + 1)
                data[other : other + length] = part
            case 5:
                value = draw.choice(INTERESTING)
                data[place : place + len(value)] = value
            case _:
                del data[max(1, place) :]
    return bytes(data)


def changed(value: object, draw: random.Random) -> object:
    """A JSON value with another one in a random place of it."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(list(value))
        match draw.randrange(4):
            case 0:
                return {other: inner for other, inner in value.items() if other != key}
            case 1:
                return value | {draw.choice(("", "x" * 300, key + " ", "__metadata__")): value[key]}
            case _:
                return value | {key: changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        return [*value[:place], changed(value[place], draw), *value[place + draw.randrange(2) :]]
    if isinstance(value, str) and value[:1] in "[{" and draw.random() < 0.8:  # a header has JSON in its strings
        try:
            return json.dumps(changed(json.loads(value), draw))
        except ValueError:
            return value
    return draw.choice(VALUES)


def in_header(data: bytes, draw: random.Random) -> bytes:
    """Changes the header of a safetensors file, and mends its length; its numbers as values, or its bytes."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    if draw.random() < 0.5:
        header = mutated(data[8:end], draw)
    else:
        header = json.dumps(changed(json.loads(data[8:end]), draw)).encode()
    return struct.pack("<Q", len(header)) + header + data[end:]


def in_zip(data: bytes, draw: random.Random) -> bytes:
    """Changes one entry of a zip, and mends the checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        chosen = draw.choice([name for name in old.namelist() if "data" in name])
        for name in old.namelist():
            new.writestr(name, mutated(old.read(name), draw) if name == chosen else old.read(name))
    return file.getvalue()


def in_png(data: bytes, draw: random.Random) -> bytes:
    """Changes one chunk of a PNG, and mends its length and checksum."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += size + 12
    chosen = draw.randrange(len(chunks))
    chunks[chosen] = (chunks[chosen][0], mutated(chunks[chosen][1], draw))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def in_lines(data: bytes, draw: random.Random) -> bytes:
    """Changes a cell, a JSON value, or the order of the lines of a text."""
    lines = data.split(b"\n")
    place = draw.randrange(len(lines))
    match draw.randrange(4):
        case 0:
            draw.shuffle(lines)
        case 1:
            lines.insert(place, lines[draw.randrange(len(lines))])
        case 2 if lines[place].startswith(b"{"):
            lines[place] = json.dumps(changed(json.loads(lines[place]), draw)).encode()
        case _:
            cells = re.split(rb"([,;\t ])", lines[place])
            cells[draw.randrange(len(cells))] = draw.choice((*INTERESTING, *(str(n).encode() for n in NUMBERS)))
            lines[place] = b"".join(cells)
    return b"\n".join(lines)


def structure_of(data: bytes) -> Mutation:
    """The mutation that knows the structure of a file."""
    if data.startswith(b"PK"):
        return in_zip
    if data.startswith(b"\x89PNG"):
        return in_png
    if data[8:9] == b"{":
        return in_header
    if data[:1].isascii() and b"\0" not in data and not data.startswith((b"GIF", b"BM", b"II", b"MM", b"RIFF")):
        return in_lines
    return mutated


def mutation(data: bytes, draw: random.Random) -> bytes:
    return draw.choice((mutated, structure_of(data)))(data, draw)
