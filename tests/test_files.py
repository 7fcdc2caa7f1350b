"""Atomic writes, what image files are called, and what is wrong with a safetensors file, or stands in its place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from ti_train.files import SCANNED, file_name, remove_unfinished, replace, safetensors_damage, write_atomically

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
        (lambda _: (2**20).to_bytes(8, "little") + b'{"v":' + b"[" * 100_000, "is incomplete or damaged"),
        (lambda data: (2**25).to_bytes(8, "little") + data[8:64].ljust(2**25) + data[64:], "is incomplete or damaged"),
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
        "a header of 32 MiB",
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


@pytest.mark.parametrize("name", ["x" * 251 + ".txt", "猫" * 80 + ".txt"], ids=["ASCII", "Chinese"])
def test_a_file_may_have_the_longest_name(tmp_path, name):
    write_atomically(tmp_path / name, b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    theirs = [".x.txt.123", ".y.txt.123", ".x.txt.bak", ".x.txt", "x.txt", ".x.txt.123.456"]
    for name in theirs:
        (tmp_path / name).write_bytes(b"")
    remove_unfinished(tmp_path / "x.txt")
    assert {path.name for path in tmp_path.iterdir()} == {*theirs} - {".x.txt.123", ".x.txt.123.456"}


def test_threads_that_write_one_file_at_once_do_not_write_into_each_other_s(tmp_path, monkeypatch):
    """The second one begins and ends while the first one's data go to the disk."""
    path, sync = tmp_path / "x.txt", os.fsync

    def interrupted(file: int) -> None:
        monkeypatch.undo()
        write_atomically(path, b"second")
        assert path.read_bytes() == b"second"
        sync(file)

    monkeypatch.setattr(os, "fsync", interrupted)
    write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("system", "held", "replaced"), [("nt", 0, True), ("nt", 3, True), ("nt", 4, False), ("posix", 1, False)]
)
def test_a_file_that_a_virus_scanner_holds_is_replaced_when_it_lets_go(tmp_path, monkeypatch, system, held, replaced):
    """That is Windows. Elsewhere the same error is one of permissions, which stays."""
    new, old, put = tmp_path / "new", tmp_path / "old", os.replace
    new.write_bytes(b"new")
    old.write_bytes(b"old")
    pauses: list[float] = []

    def locked(source: Path, target: Path) -> None:
        if len(tries) < held:
            tries.append(target)
            raise PermissionError(13, "Access is denied")
        put(source, target)

    tries: list[Path] = []
    monkeypatch.setattr(os, "replace", locked)
    monkeypatch.setattr(time, "sleep", pauses.append)
    if replaced:
        replace(new, old, system)
    else:
        with pytest.raises(PermissionError):
            replace(new, old, system)
    assert old.read_bytes() == (b"new" if replaced else b"old")
    assert pauses == list(SCANNED.get(system, ()))[:held]


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
