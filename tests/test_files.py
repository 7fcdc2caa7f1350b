"""Atomic writes, what image files are called, and what is wrong with a safetensors file, or stands in its place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from ti_train.files import file_name, remove_unfinished, safetensors_damage, write_atomically

ROOT = Path(__file__).resolve().parent.parent


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
        (lambda data: data.replace(b"[0,16]", b"[0,[]]"), r"is incomplete or damaged \(80 bytes\)"),
        (lambda _: (2**27).to_bytes(8, "little") + b'{"v":' + b"[" * 100_000, "is incomplete or damaged"),
        (lambda _: b"", "is empty"),
        (lambda _: b"\n<!doctype html>\n<title>Log in</title>", "is a web page, such as one that asks for a login"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (lambda _: b"Access denied\n", r"is a text, not the file itself: 'Access denied'\. Download"),
        (lambda _: b"PNG\r\n\x1a\n" + b"text" * 9, ""),  # not this format at all
    ],
    ids=[
        "whole",
        "longer",
        "shorter",
        "cut header",
        "no offset",
        "nested too deeply",
        "empty",
        "web page",
        "pointer",
        "message",
        "binary",
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, change, said):
    (tmp_path / "x.safetensors").write_bytes(change(save({"v": torch.zeros(4)})))
    found = safetensors_damage(tmp_path / "x.safetensors")
    assert re.match(said, found) if said else found == ""


def test_data_are_on_disk_before_their_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    """So that a power cut leaves the old file or the new one."""
    order, sync, put = [], os.fsync, os.replace
    kinds = {True: "folder", False: "data"}
    monkeypatch.setattr(
        os, "fsync", lambda file: (order.append(kinds[os.path.isdir(f"/proc/self/fd/{file}")]), sync(file))
    )
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("name"), put(*names)))
    write_atomically(tmp_path / "x.txt", b"new")
    assert order == ["data", "name", "folder"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    theirs = [".x.txt.123", ".y.txt.123", ".x.txt.bak", ".x.txt", "x.txt", ".x.txt.123.456"]
    for name in theirs:
        (tmp_path / name).write_bytes(b"")
    remove_unfinished(tmp_path / "x.txt")
    assert {path.name for path in tmp_path.iterdir()} == {*theirs} - {".x.txt.123", ".x.txt.123.456"}


TEMPORARY = """
import os, sys
from pathlib import Path
from ti_train.files import write_atomically
os.getpid = lambda: 7
put = os.replace
os.replace = lambda source, target: (print(Path(source).name), put(source, target))
write_atomically(Path(sys.argv[1]), b"")
"""


def test_machines_with_equal_process_ids_do_not_write_into_each_other_s_files(tmp_path):
    """A folder that they share."""
    command = [sys.executable, "-c", TEMPORARY, tmp_path / "x.txt"]
    first, second = (subprocess.check_output(command, text=True, cwd=ROOT).strip() for _ in range(2))
    assert first != second
    for name in (first, second):
        (tmp_path / name).write_bytes(b"killed")
    remove_unfinished(tmp_path / "x.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
