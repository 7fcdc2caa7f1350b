"""Embedding files: what is written, what is read, and what is refused."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ti_train.embedding import SINGLE, Embedding
from ti_train.errors import UserError
from ti_train.formats import config_of, load_embedding, read_embedding, save_embedding

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def without_modelspec(header: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in header.items() if not key.startswith("modelspec.")}


def test_a_file_has_one_tensor_of_fp32_and_its_provenance(tmp_path):
    path = tmp_path / "cat.safetensors"
    vectors = torch.randn(3, 16)
    save_embedding(Embedding("cat", {"clip_l": vectors}, {"step": "7"}), path)
    ((key, tensor),) = load_file(path).items()
    assert (key, tensor.dtype, torch.equal(tensor, vectors)) == ("emb_params", torch.float32, True)
    with safe_open(path, framework="pt") as file:
        assert without_modelspec(file.metadata()) == {"name": "cat", "step": "7"}


def test_sdxl_has_one_tensor_for_each_encoder_and_comes_back(tmp_path):
    path = tmp_path / "cat.safetensors"
    word = Embedding("cat", {"clip_l": torch.randn(3, 768), "clip_g": torch.randn(3, 1280)}, {"step": "7"})
    save_embedding(word, path)
    assert {key: tensor.dtype for key, tensor in load_file(path).items()} == dict.fromkeys(word.vectors, torch.float32)
    read = load_embedding(path)
    assert set(read.vectors) == set(word.vectors)
    assert all(torch.equal(read.vectors[encoder], word.vectors[encoder]) for encoder in word.vectors)
    assert (read.name, read.provenance["step"]) == ("cat", "7")
    assert read_embedding(path).layout == "safetensors, tensors 'clip_l' and 'clip_g'"


def test_a_word_has_as_many_vectors_for_each_encoder(tmp_path):
    save_file({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(3, 1280)}, tmp_path / "cat.safetensors")
    with pytest.raises(UserError, match=r"'cat.safetensors' holds (2 for clip_l|3 for clip_g) and"):
        load_embedding(tmp_path / "cat.safetensors")


def test_a_file_of_one_tensor_under_any_name_is_read(tmp_path):
    save_file({"<my-cat>": torch.ones(16, dtype=torch.float16)}, tmp_path / "cat.safetensors")
    read = load_embedding(tmp_path / "cat.safetensors")
    assert (read.name, read.provenance) == ("cat", {})
    assert torch.equal(read.vectors[SINGLE], torch.ones(1, 16))
    assert read_embedding(tmp_path / "cat.safetensors").layout == "safetensors, one tensor '<my-cat>'"


def test_a_word_saved_under_another_name_has_that_name(tmp_path):
    """Its provenance comes from the file it was read from, old name and all."""
    save_embedding(Embedding("old", {SINGLE: torch.ones(1, 4)}), tmp_path / "old.safetensors")
    old = load_embedding(tmp_path / "old.safetensors")
    save_embedding(Embedding("new", old.vectors, old.provenance), tmp_path / "new.safetensors")
    assert load_embedding(tmp_path / "new.safetensors").name == "new"


@settings(max_examples=40)
@given(
    shape=st.one_of(st.tuples(st.integers(1, 9)), st.tuples(st.integers(1, 5), st.integers(1, 9))),
    dtype=st.sampled_from(DTYPES),
    provenance=st.dictionaries(st.text().filter(lambda key: key != "name"), st.text(), max_size=4),
    name=st.text(),
)
def test_round_trip_of_any_shape_type_and_text(shape, dtype, provenance, name):
    vectors = torch.randn(shape).to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "word.safetensors")
        save_file({"any": vectors}, path)
        read = load_embedding(path)
        save_embedding(Embedding(name, read.vectors, provenance), path)
        again = load_embedding(path)
    assert torch.equal(again.vectors[SINGLE], vectors.float().reshape(-1, shape[-1]))
    assert (again.name, without_modelspec(again.provenance)) == ("word", {"name": name, **provenance})


def with_value(value: float) -> torch.Tensor:
    vectors = torch.ones(2, 4)
    vectors[1, 2] = value
    return vectors


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({}, "holds no tensor"),
        (
            {f"layer.{i}": torch.ones(1, 4) for i in range(65)},
            r"65 tensors \(layer.0, layer.1, layer.10 ...\). Is it a",
        ),
        ({"emb": torch.ones(1, 4, dtype=torch.int64)}, r"shape \[1, 4\] and type int64"),
        ({"emb": torch.ones(1, 2, 4)}, r"shape \[1, 2, 4\]"),
        ({"emb": torch.tensor(1.0)}, r"shape \[\]"),
        ({"emb": torch.ones(0, 4)}, r"shape \[0, 4\]"),
        ({"emb": with_value(float("nan"))}, "NaN or infinite"),
        ({"emb": with_value(float("inf"))}, "NaN or infinite"),
    ],
)
def test_a_file_that_is_no_word_is_refused_by_name(tmp_path, tensors, why):
    save_file(tensors, tmp_path / "cat.safetensors")
    with pytest.raises(UserError, match=f"^'cat.safetensors' holds .*{why.removeprefix('holds ')}"):
        load_embedding(tmp_path / "cat.safetensors")


@pytest.mark.parametrize("content", [b"\x07such\x01thing\x02", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0notjson!"])
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "cat.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"'cat.safetensors' is not a readable embedding, or it is damaged"):
        load_embedding(tmp_path / "cat.safetensors")


def test_half_a_file_is_refused(tmp_path):
    path = tmp_path / "cat.safetensors"
    save_embedding(Embedding("cat", {SINGLE: torch.ones(2, 4)}), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"^'cat.safetensors' is incomplete: 5 of \d+ bytes are missing"):
        load_embedding(path)


def test_a_header_that_is_larger_than_any_embedding_is_not_read(tmp_path):
    (tmp_path / "cat.safetensors").write_bytes((2**24 + 1).to_bytes(8, "little") + b"{}" + b" " * 2**24)
    with pytest.raises(UserError, match="has a header of more than 16 MiB"):
        load_embedding(tmp_path / "cat.safetensors")


def test_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="The embedding file"):
        load_embedding(tmp_path / "cat.safetensors")


def test_a_file_as_large_as_a_model_is_not_read(tmp_path):
    with (tmp_path / "model.pt").open("wb") as file:
        file.write(b"\x80\x02\x8a\n")
        file.truncate(2**28 + 1)  # a sparse file: takes no room
    with pytest.raises(UserError, match=r"has 256 MiB; .* Is it a model"):
        load_embedding(tmp_path / "model.pt")
    save_file({"table": torch.zeros(6000, 768)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"holds more than 16 MiB of tensors; .* Is it a model"):
        load_embedding(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("provenance", "config"),
    [
        ({"config": json.dumps({"steps": 5})}, {"steps": 5}),
        ({}, {}),
        ({"config": "{"}, {}),
        ({"config": "[1]"}, {}),
    ],
)
def test_the_settings_in_a_file_are_read_where_they_are_there(provenance, config):
    assert config_of(Embedding("cat", {SINGLE: torch.ones(1, 4)}, provenance)) == config
