"""Damaged and forged bytes of every layout: an error of one sentence at worst.

TI_TRAIN_FUZZ: how many, 500 where it is not set.
"""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

import torch
from sample_files import a1111_json, card, panels, samples, torch_saved

from ti_train.errors import UserError
from ti_train.formats import read_embeddings

CASES = int(os.environ.get("TI_TRAIN_FUZZ", "500"))
INTERESTING = (
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
)


class MakesAFile:
    """A program in a pickle that leaves a file called 'evil' where it is run."""

    def __reduce__(self):
        return open, ("evil", "w")


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


def zip_inside(data: bytes, draw: random.Random) -> bytes:
    """Changes one entry of a zip and mends the checksums, so that the change is reached."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        chosen = draw.choice([name for name in old.namelist() if "data" in name])
        for name in old.namelist():
            new.writestr(name, mutated(old.read(name), draw) if name == chosen else old.read(name))
    return file.getvalue()


def safetensors_inside(data: bytes, draw: random.Random) -> bytes:
    """Changes the header and mends its length."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = mutated(data[8:end], draw)
    return struct.pack("<Q", len(header)) + header + data[end:]


def json_inside(_: bytes, draw: random.Random) -> bytes:
    text = mutated(a1111_json(torch.ones(1, 4)), draw)
    return draw.choice((card(text), panels(zlib.compress(text), draw.choice(("PNG", "WEBP")))))


def panels_inside(_: bytes, draw: random.Random) -> bytes:
    return panels(mutated(zlib.compress(a1111_json(torch.ones(1, 4))), draw))


INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {"safetensors": safetensors_inside, "png": json_inside}


def inside(ending: str, data: bytes, draw: random.Random) -> bytes:
    if data.startswith(b"PK"):
        return zip_inside(data, draw)
    return INSIDE.get(ending, mutated if ending != "webp" else panels_inside)(data, draw)


def test_no_bytes_crash_run_or_leave_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [(sample.ending, sample.data) for sample in samples().values()]
    evil = {"string_to_param": {"*": torch.ones(1, 4)}, "step": MakesAFile()}
    files += [("pt", torch_saved(evil)), ("pt", torch_saved(evil, legacy=True))]
    read = refused = 0
    for case in range(CASES):
        draw = random.Random(case)
        ending, data = files[case % len(files)]
        change = draw.choice((mutated, lambda data, draw, ending=ending: inside(ending, data, draw)))
        (tmp_path / f"x.{ending}").write_bytes(change(data, draw))
        try:
            vectors = [
                v for reading in read_embeddings(tmp_path / f"x.{ending}") for v in reading.embedding.vectors.values()
            ]
            said = ""
        except UserError as error:
            vectors, said = [], str(error)
        except BaseException as error:
            raise AssertionError(f"case {case} ({ending})") from error
        assert all(v.isfinite().all() and v.ndim == 2 for v in vectors)
        assert said.isprintable(), f"case {case}: {said!r}"
        read, refused = read + bool(vectors), refused + bool(said)
        (tmp_path / f"x.{ending}").unlink()
    assert list(tmp_path.iterdir()) == [], "something was run, or left behind"
    assert min(read, refused) > CASES // 20, (
        f"{read} read, {refused} refused: the changes are too weak or too strong to find anything"
    )
