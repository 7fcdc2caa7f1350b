"""`benchmarks/abuse.py mutate`: what once failed, a part of its mutations, and whether it sees what is wrong."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")  # Windows has none

from benchmarks.abuse_parts import samples
from benchmarks.abuse_parts.image_mutations import KINDS
from benchmarks.abuse_parts.mutate import CORPUS, Kind, kinds, mutate, problem
from benchmarks.abuse_parts.mutations import in_zip
from ti_train.errors import UserError

NAMES = (
    *("embeddings", "checkpoints", "images", "masks"),
    *("captions", "tables of captions", "templates", "resume files", "step logs"),
)
FILES = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))
COUNT = 30


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "mutated").mkdir()
    return tmp_path / "mutated"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("file", FILES)
def test_what_once_failed_is_read_or_refused_in_words(folder, file):
    (kind,) = (kind for kind in kinds(folder) if kind.name.replace(" ", "-") == Path(file).parent.name)
    _, wrong = problem(kind, folder / kind.name_of(CORPUS / file), (CORPUS / file).read_bytes())
    assert not wrong


def test_each_file_of_the_corpus_is_small_and_has_a_reason():
    rows = (CORPUS / "README.md").read_text(encoding="utf-8").splitlines()
    assert [row.split(" | ")[0] for row in rows if "/" in row and row.startswith("|")] == [
        f"| {file}" for file in FILES
    ]
    assert [file for file in FILES if (CORPUS / file).stat().st_size > 4096] == []


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", NAMES)
def test_some_mutated_files_of_each_kind(folder, tmp_path, name):
    (kind,) = (kind for kind in kinds(folder) if kind.name == name)
    found = mutate(kind, folder, COUNT, 0, tmp_path / "failing")
    assert found.wrong == []
    assert found.read + found.refused == COUNT + len(kind.corpus())
    assert not (tmp_path / "failing").exists()


def starts_a_program(path: Path) -> None:
    subprocess.run([sys.executable, "--version"], stdout=subprocess.DEVNULL)


def removes_what_it_wrote(path: Path) -> None:
    path.with_name("evil").write_text("")
    path.with_name("evil").unlink()


def leaves_a_file(path: Path) -> None:
    os.link(path, path.with_name("evil"))


def ends_in_a_traceback(path: Path) -> None:
    raise IndexError("a fault")


def says_it_on_the_terminal(path: Path) -> None:
    error = UserError("")
    error.args = ("\x1b",)
    raise error


@pytest.mark.parametrize(
    "read",
    [starts_a_program, removes_what_it_wrote, leaves_a_file, ends_in_a_traceback, says_it_on_the_terminal],
)
def test_what_reading_must_not_do_is_seen_and_the_file_is_kept(tmp_path, folder, read):
    kind = Kind("some files", [("x.txt", b"x" * 100)], lambda path: b"x" in path.read_bytes() and read(path))
    found = mutate(kind, folder, 1, 0, tmp_path / "failing")
    assert len(found.wrong) == 1
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "failing" / "some-files").iterdir()] == [
        ("0-0.txt", b"x")
    ], "made as small as it can be"
    assert list(folder.iterdir()) == []


def test_a_program_in_a_pickle_would_be_seen(folder, monkeypatch):
    import pickle

    monkeypatch.chdir(folder)
    kind = Kind("pickles", [], lambda path: pickle.loads(path.read_bytes()).close())
    read, wrong = problem(kind, folder / "x.pkl", pickle.dumps(samples.MakesAFile()))
    assert read
    assert "open 'evil'" in wrong


def test_an_image_has_parts_that_make_it_up():
    seen = set()
    for ending, data in samples.images():
        for mark, place, parts_of, joined in KINDS:
            if data[place : place + len(mark)] == mark:
                assert joined(*parts_of(data)) == data, ending
                assert parts_of(data)[1]
                seen.add(mark)
    assert {b"\x89PNG", b"RIFF", b"\xff\xd8", b"II*\0"} <= seen


def test_changed_programs_of_pickles_are_of_many_kinds():
    data = next(data for name, data in samples.embeddings() if data.startswith(b"PK"))
    assert len({in_zip(data, random.Random(case)) for case in range(50)}) > 40
