"""Damaged and forged bytes of every layout: an error of one sentence at worst.

TI_TRAIN_FUZZ: how many, 500 where it is not set.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable

import torch
from sample_files import a1111_json, card, panels

from benchmarks.abuse_parts.mutations import in_header, in_zip, mutated
from benchmarks.abuse_parts.samples import embeddings
from ti_train.errors import UserError
from ti_train.formats import read_embeddings
from ti_train.text import printable

CASES = int(os.environ.get("TI_TRAIN_FUZZ", "500"))


def json_inside(_: bytes, draw: random.Random) -> bytes:
    text = mutated(a1111_json(torch.ones(1, 4)), draw)
    return draw.choice((card(text), panels(zlib.compress(text), draw.choice(("PNG", "WEBP")))))


def panels_inside(_: bytes, draw: random.Random) -> bytes:
    return panels(mutated(zlib.compress(a1111_json(torch.ones(1, 4))), draw))


INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {"safetensors": in_header, "png": json_inside}


def inside(ending: str, data: bytes, draw: random.Random) -> bytes:
    if data.startswith(b"PK"):
        return in_zip(data, draw)
    return INSIDE.get(ending, mutated if ending != "webp" else panels_inside)(data, draw)


def test_no_bytes_crash_run_or_leave_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [(name.removeprefix("x."), data) for name, data in embeddings()]
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
        assert said == printable(said), f"case {case}: {said!r}"
        read, refused = read + bool(vectors), refused + bool(said)
        (tmp_path / f"x.{ending}").unlink()
    assert list(tmp_path.iterdir()) == [], "something was run, or left behind"
    assert min(read, refused) > CASES // 20, (
        f"{read} read, {refused} refused: the changes are too weak or too strong to find anything"
    )
