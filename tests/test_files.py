"""What image files are called, and what is wrong with a safetensors file, or stands in its place."""

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
        (lambda _: b"\n<!doctype html>\n<title>Log in</title>", "is a web page, such as one that asks for a login"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (lambda _: b"Access denied\n", r"is a text, not the file itself: 'Access denied'\. Download"),
        (lambda _: b"PNG\r\n\x1a\n" + b"text" * 9, ""),  # not this format at all
    ],
    ids=["whole", "longer", "shorter", "cut header", "empty", "web page", "pointer", "message", "binary"],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, change, said):
    (tmp_path / "x.safetensors").write_bytes(change(save({"v": torch.zeros(4)})))
    found = safetensors_damage(tmp_path / "x.safetensors")
    assert re.match(said, found) if said else found == ""
