"""What image files are called, and what is wrong with the length of a safetensors file."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save

from ti_train.files import file_name, safetensors_damage


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a photo of <my-cat>!", "a-photo-of-my-cat"),
        ("../../etc", "etc"),
        ("?", "picture"),
        ("猫", "猫"),
        ("x" * 99, "x" * 60),
    ],
)
def test_pictures_are_named_by_their_prompt(prompt, name):
    assert file_name(prompt) == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data, ""),
        (lambda data: data + b"\0" * 7, "has 7 bytes after its end, which no tool accepts"),
        (lambda data: data[:-5], "is incomplete: 5 of 80 bytes are missing"),
        (lambda data: data[:20], r"is incomplete or damaged \(20 bytes\)"),
        (lambda _: b"", "is empty"),
        (lambda _: b"<!DOCTYPE html>", ""),  # not this format at all
    ],
    ids=["whole", "longer", "shorter", "cut header", "empty", "a web page"],
)
def test_a_file_that_is_too_long_or_too_short_is_told(tmp_path, change, said):
    (tmp_path / "x.safetensors").write_bytes(change(save({"v": torch.zeros(4)})))
    found = safetensors_damage(tmp_path / "x.safetensors")
    assert re.match(said, found) if said else found == ""
