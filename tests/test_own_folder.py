"""Folders of temporary files that a killed process leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ti_train.own_folder import OwnFolder, abandoned, remove_abandoned

ROOT = Path(__file__).resolve().parents[1]
USE = """
import sys, time
from pathlib import Path
from ti_train.own_folder import OwnFolder
folder = OwnFolder(Path(sys.argv[1]))
(folder.path / "file").touch()
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has a folder in tmp_path, and the folder."""
    process = subprocess.Popen([sys.executable, "-c", USE, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()


def test_it_goes_with_what_uses_it(tmp_path):
    place = tmp_path / "in" / "it"
    folder = OwnFolder(place)
    (folder.path / "file").touch()
    assert not [*abandoned(place)]
    del folder
    assert not [*place.iterdir()]


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(tmp_path, other):
    process, theirs = other
    ours = OwnFolder(tmp_path)
    remove_abandoned(tmp_path)
    assert ours.path.is_dir()
    assert (theirs / "file").is_file()
    process.kill()
    process.wait()
    assert [*abandoned(tmp_path)] == [theirs]
    remove_abandoned(tmp_path)
    assert [*tmp_path.glob("*/")] == [ours.path]
    assert len([*tmp_path.iterdir()]) == 2, "and its lock"


def test_where_a_file_system_has_no_locks_nothing_counts_as_left(tmp_path, monkeypatch):
    monkeypatch.setattr("ti_train.own_folder.try_lock", lambda file: None)
    folder = OwnFolder(tmp_path)
    remove_abandoned(tmp_path)
    assert folder.path.is_dir()


def test_there_need_be_no_such_place(tmp_path):
    remove_abandoned(tmp_path / "nowhere")
