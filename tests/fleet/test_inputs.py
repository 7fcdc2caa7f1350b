"""What a job was trained from: it changes with what is in its files, and not with the way to them."""

from __future__ import annotations

import os
import shutil

import pytest
from tiny_host import TinyHost

from ti_train.fleet.inputs import inputs_of, model_identity, unchanged
from ti_train.fleet.job_list import Common, read_jobs
from ti_train.fleet.plan import plan
from ti_train.fleet.records import Ledger
from ti_train.fleet.worker import Rules, work

SMALL = {"steps": 4, "batch_size": 2, "evaluate_every": 2, "device": "cpu", "dtype": "float32"}


@pytest.fixture
def place(tmp_path, pictures):
    """A folder with a list, images, a file of initial vectors and templates."""
    place = tmp_path / "here"
    shutil.copytree(pictures, place / "toy" / "images")
    (place / "templates.txt").write_text("a red [name]")
    (place / "list.csv").write_text("name,init,images,templates\na,toy|start.pt,toy/images,templates.txt\n")
    (place / "start.pt").write_bytes(b"vectors")
    return place


def job_of(source, **options):
    (job,) = read_jobs(source, Common("model", "Balanced", options))
    return job


def test_the_same_list_is_unchanged_however_it_is_named(place, tmp_path, monkeypatch):
    inputs = inputs_of(job_of(place / "list.csv"))
    monkeypatch.chdir(place)
    assert unchanged(inputs, job_of(type(place)("list.csv")))
    monkeypatch.chdir(place.parent)
    assert unchanged(inputs, job_of(type(place)("here/../here/list.csv")))
    shutil.copytree(place, tmp_path / "another mount point")
    assert unchanged(inputs, job_of(tmp_path / "another mount point" / "list.csv"))


def test_a_list_that_is_named_otherwise_trains_nothing_again(tmp_path, pictures, monkeypatch):
    (tmp_path / "list.csv").write_text(f"name,init,images\na,toy,{os.path.relpath(pictures, tmp_path)}\n")
    out, host = tmp_path / "out", TinyHost()
    work(lambda: host, [job_of(tmp_path / "list.csv", **SMALL)], Rules(out), lambda: False)
    monkeypatch.chdir(tmp_path)
    assert plan([job_of(type(out)("list.csv"), **SMALL)], Ledger(out), update=False) == []
    assert Ledger(out).read("a").status == "done"


@pytest.mark.parametrize("file", ["templates.txt", "start.pt", "toy/images/red.txt", "toy/images/red.png"])
def test_each_file_is_looked_into(place, file):
    before = inputs_of(job_of(place / "list.csv"))
    content = (place / file).read_bytes()
    (place / file).write_bytes(content + b" [name]")
    assert not unchanged(before, job_of(place / "list.csv"))
    (place / file).write_bytes(content)
    assert unchanged(before, job_of(place / "list.csv"))


def test_repeats_and_precision_are_compared(place):
    before = inputs_of(job_of(place / "list.csv"))
    assert not unchanged(before, job_of(place / "list.csv", dtype="float16"))
    assert unchanged(before, job_of(place / "list.csv", device="cpu", preview_every=5))
    text = (place / "list.csv").read_text()
    (place / "list.csv").write_text(text.replace("toy/images", "toy/images:2"))
    assert not unchanged(before, job_of(place / "list.csv"))


def test_a_model_is_known_by_its_weights_wherever_it_is(tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    one.write_bytes(bytes(3_000_000))
    two.write_bytes(bytes(3_000_000))
    identity = model_identity(one)
    assert identity == model_identity(two)
    assert identity != model_identity(one, "v_prediction")
    two.write_bytes(bytes(2_000_000) + b"\1" * 1_000_000)
    assert identity != model_identity(two)


def test_a_folder_of_a_model_is_known_by_all_its_files(tmp_path):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "weights.safetensors").write_bytes(b"1234")
    before = model_identity(tmp_path / "model")
    (tmp_path / "model" / ".cache").mkdir()
    (tmp_path / "model" / ".cache" / "lock").write_bytes(b"now")
    assert model_identity(tmp_path / "model") == before
    (tmp_path / "model" / "model_index.json").write_bytes(b"{}")
    assert model_identity(tmp_path / "model") != before
    (tmp_path / "model" / "model_index.json").unlink()
    (tmp_path / "model" / "unet").rename(tmp_path / "model" / "vae")
    assert model_identity(tmp_path / "model") != before, "the same bytes for another part"
    assert model_identity(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'} None"
