"""What belongs to an embedding: all of it moves under the new name, and nothing of others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ti_train.embedding import SINGLE, Embedding
from ti_train.errors import UserError
from ti_train.formats import save_embedding
from ti_train.training.belongings import belongings, move
from ti_train.training.session import Records, Session

OF_USERS = ("cat.png", "cat.jpeg", "cat.preview.webp", "cat.json", "cat.txt", "cat.civitai.info")
OF_OTHERS = ("cat-2.safetensors", "cats.csv", "cat-worse.csv", "cat-loss.txt", "bird.resume", "cat-steps.safetensors")


def header(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def word(folder: Path, name: str, run: str) -> None:
    provenance = {"config": json.dumps({"name": run}), "finished": "abc"}
    save_embedding(Embedding(name, {SINGLE: torch.randn(2, 768)}, provenance), folder / f"{name}.safetensors")


@pytest.fixture
def folder(tmp_path) -> Path:
    """An embedding with all that a run leaves, and other files with similar names."""
    word(tmp_path, "cat", "cat")
    word(tmp_path, "cat-worse", "cat")
    (tmp_path / "cat-steps").mkdir()
    word(tmp_path / "cat-steps", "cat-000100", "cat")
    Image.new("RGB", (8, 8)).save(tmp_path / "cat-steps" / "cat-000100.preview.png")
    for name in ("cat.resume", "cat.csv", "cat-loss.png", "cat-step00100-0.png", *OF_USERS, *OF_OTHERS):
        (tmp_path / name).write_bytes(b"contents")
    return tmp_path


def test_everything_of_a_name_moves_and_nothing_else(folder):
    kept = {name: (folder / name).read_bytes() for name in OF_OTHERS}
    before = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    move(folder / "cat.safetensors", folder / "pets" / "my-dog.safetensors", "pets/my-dog")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == kept
    after = sorted(path.relative_to(folder / "pets").as_posix() for path in (folder / "pets").rglob("*"))
    assert after == sorted(name.replace("cat", "my-dog") for name in before if name not in OF_OTHERS)


def test_names_in_headers_are_the_new_ones_and_the_vectors_the_same_bits(folder):
    vectors = {name: load_file(folder / f"{name}.safetensors")[SINGLE] for name in ("cat", "cat-worse")}
    old = header(folder / "cat.safetensors")
    move(folder / "cat.safetensors", folder / "dog.safetensors", "dog")
    for name, was in vectors.items():
        file = folder / f"{name.replace('cat', 'dog')}.safetensors"
        new = header(file)
        assert {new["name"], new["modelspec.title"], new["modelspec.trigger_phrase"]} == {file.stem}
        assert f"embedding:{file.stem}." in new["modelspec.usage_hint"]
        assert json.loads(new["config"]) == {"name": "dog"}
        assert load_file(file)[SINGLE].equal(was)
    new = header(folder / "dog.safetensors")
    for same in ("modelspec.hash_sha256", "modelspec.date", "finished"):
        assert new[same] == old[same]
    copy = header(folder / "dog-steps" / "dog-000100.safetensors")
    assert (copy["modelspec.title"], json.loads(copy["config"])["name"]) == ("dog-000100", "dog")


def test_an_embedding_with_the_ending_of_a_worse_one_is_another(folder):
    word(folder, "cat-worse", "cat-worse")
    assert folder / "cat-worse.safetensors" not in belongings(folder / "cat.safetensors")


def test_what_belongs_to_two_embeddings_of_a_name_stays(folder):
    (folder / "cat.pt").write_bytes(b"of another tool")
    assert list(belongings(folder / "cat.safetensors")) == [folder / "cat.safetensors"]


def test_nothing_is_moved_if_something_of_the_new_name_is_there(folder):
    (folder / "dog.csv").write_bytes(b"of another run")
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=r"'dog\.csv' exists already"):
        move(folder / "cat.safetensors", folder / "dog.safetensors", "dog")
    assert sorted(folder.rglob("*")) == before


def test_what_was_moved_before_an_error_is_moved_back(folder, monkeypatch):
    before, moved, carry = sorted(folder.rglob("*")), [], shutil.move

    def refuse(old, new):
        if Path(old).name == "cat.resume":
            raise PermissionError("in use")
        moved.append(new)
        carry(old, new)

    monkeypatch.setattr(shutil, "move", refuse)
    with pytest.raises(OSError, match="in use"):
        move(folder / "cat.safetensors", folder / "dog.safetensors", "dog")
    assert moved
    assert sorted(folder.rglob("*")) == before


def test_a_run_that_was_interrupted_is_continued_under_its_new_name(host, dataset, settings, tmp_path):
    def session(name: str) -> Session:
        return Session(settings(name=name), tmp_path, Records.beside_embedding(tmp_path, name))

    first, second = session("my-toy"), session("my-dog")
    events = first.train(host, dataset)
    next(event for event in events if getattr(event, "step", 0) == 3)
    events.close()
    move(first.file, tmp_path / "my-dog.safetensors", "my-dog")
    list(second.train(host, dataset, resume=True))
    assert [step.step for step in second.steps] == [0, 1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.glob("my-toy*"))


@pytest.mark.parametrize(("there", "wanted"), [("Dog", "dog"), ("cafe\u0301", "caf\u00e9"), ("STRASSE", "straße")])
def test_a_name_that_differs_in_case_or_unicode_form_only_is_taken(tmp_path, there, wanted):
    """On other systems it is the same file."""
    word(tmp_path, "cat", "cat")
    (tmp_path / f"{there}.safetensors").write_bytes(b"another")
    with pytest.raises(UserError, match="exists already"):
        move(tmp_path / "cat.safetensors", tmp_path / f"{wanted}.safetensors", wanted)
    move(tmp_path / "cat.safetensors", tmp_path / "CAT.safetensors", "CAT")
    assert (tmp_path / "CAT.safetensors").is_file(), "its own name in other letters"
