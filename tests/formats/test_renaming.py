"""Another name for an embedding file whose name is also in it."""

from __future__ import annotations

import os

import pytest
import torch
from PIL import Image

from ti_train.embedding import SINGLE, Embedding
from ti_train.formats import load_embedding, name_inside, write_embedding

VECTORS = {SINGLE: torch.randn(2, 768)}


@pytest.mark.parametrize(("layout", "ending"), [("safetensors", ".safetensors"), ("png", ".png"), ("a1111", ".pt")])
def test_the_file_has_its_new_name_and_the_same_vectors(tmp_path, layout, ending):
    write_embedding(Embedding("old", VECTORS, {"config": '{"name": "old"}'}), tmp_path / f"old{ending}", layout)
    file = (tmp_path / f"old{ending}").rename(tmp_path / f"new{ending}")
    os.utime(file, (1e9, 1e9))
    name_inside(file, "new")
    read = load_embedding(file)
    assert (read.name, file.stat().st_mtime) == ("new", 1e9)
    assert read.vectors[SINGLE].equal(VECTORS[SINGLE])
    if layout != "a1111":  # whose name inside nobody reads
        assert "old" not in str(read.provenance)


def test_the_image_stays_as_it_was(tmp_path):
    picture = Image.effect_noise((64, 64), 90).convert("RGB")
    write_embedding(Embedding("old", VECTORS), tmp_path / "new.png", "png", picture=picture)
    name_inside(tmp_path / "new.png", "new")
    assert Image.open(tmp_path / "new.png").tobytes() == picture.tobytes()


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\nxx", b"no embedding", b"\xff" * 40])
@pytest.mark.parametrize("ending", [".safetensors", ".png", ".pt"])
def test_what_is_no_embedding_is_left_alone(tmp_path, data, ending):
    (tmp_path / f"new{ending}").write_bytes(data)
    name_inside(tmp_path / f"new{ending}", "new")
    assert (tmp_path / f"new{ending}").read_bytes() == data


def test_a_foreign_file_gets_no_names_that_it_did_not_have(tmp_path):
    from safetensors.torch import save_file

    save_file({SINGLE: VECTORS[SINGLE]}, tmp_path / "new.safetensors")
    before = (tmp_path / "new.safetensors").read_bytes()
    name_inside(tmp_path / "new.safetensors", "new")
    assert (tmp_path / "new.safetensors").read_bytes() == before
