"""Mutations of files: of their bytes, and of what their structure says."""

from __future__ import annotations

import io
import json
import pickletools
import random
import re
import struct
import zipfile
from contextlib import suppress

from .image_mutations import Mutation, image_mutation

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
OPCODES = (  # of pickles: those without an argument, and some with one
    *(bytes([code]) for code in b"N]})(012aesut\x85\x86\x87Rb\x81\x8f\x90\x91\x94Q"),
    *(b"h\0", b"h\1", b"h\5", b"q\0", b"q\1", b"K\0", b"J\xff\xff\xff\x7f", b"X\1\0\0\0a"),
    *(b"\x8a\x08" + b"\x7f" * 8, b"G\x7f\xf0" + bytes(6), b"ccollections\nOrderedDict\n", b"cos\nsystem\n"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n", b"c__builtin__\nset\n"),
    *(b"cnumpy._core.multiarray\nscalar\n", b"cnumpy\ndtype\n", b"ctorch.nn.modules.container\nParameterDict\n"),
)


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
        change = in_pickle if chosen.endswith(".pkl") and draw.random() < 0.5 else mutated
        for name in old.namelist():
            new.writestr(name, change(old.read(name), draw) if name == chosen else old.read(name))
    return file.getvalue()


def in_pickle(data: bytes, draw: random.Random) -> bytes:
    """Changes the program of a pickle: opcodes are left out, doubled, exchanged, or new ones put in."""
    codes = _opcodes(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        place, other = (draw.randrange(len(codes)) for _ in range(2))
        match draw.randrange(4):
            case 0 if len(codes) > 1:
                del codes[place]
            case 1:
                codes.insert(other, codes[place])
            case 2:
                codes[place], codes[other] = codes[other], codes[place]
            case _:
                codes.insert(place, draw.choice(OPCODES))
    return b"".join(codes)


def _opcodes(data: bytes) -> list[bytes]:
    """The opcodes of pickles, one after another, with their arguments; what follows a damaged one belongs to it."""
    places, stream = [0], io.BytesIO(data)
    with suppress(Exception):  # pickletools raises whatever a damaged argument does
        while True:
            places += [place for *_, place in pickletools.genops(stream) if place]
    return [data[place:end] for place, end in zip(places, [*places[1:], len(data)], strict=True)]


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
    if data.startswith(b"\x80"):
        return in_pickle
    if in_image := image_mutation(data, mutated):
        return in_image
    if data[8:9] == b"{":
        return in_header
    if data[:1].isascii() and b"\0" not in data and not data.startswith((b"GIF", b"BM")):
        return in_lines
    return mutated


def mutation(data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.5:
        with suppress(Exception):  # a damaged file, as those of the corpus, may have no structure
            return structure_of(data)(data, draw)
    return mutated(data, draw)
