"""Where a run's files lie: long paths, other scripts, file systems that know no case or cannot be written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ti_train.__main__ import main
from ti_train.errors import BusyError
from ti_train.formats import load_embedding
from ti_train.training.belongings import move
from ti_train.training.run_lock import only_run
from ti_train.training.step_log import read_steps

ROOT = Path(__file__).resolve().parents[2]
PLACES = {"spaces": "two  words (1) & 100%", "other scripts": "猫 naïve 🐈", "240 characters": "long"}


@pytest.fixture(params=PLACES)
def place(request, tmp_path) -> Path:
    """A folder. 240 characters: of the path of an embedding in its folder `one`."""
    folder = tmp_path / PLACES[request.param]
    if request.param == "240 characters":
        folder /= "x" * (240 - len(str(folder / "x" / "one" / "my-toy.safetensors")) + 1)
    folder.mkdir(parents=True)
    return folder


def test_a_run_is_trained_interrupted_resumed_and_used_anywhere(
    place, train, interrupted, pipeline_folder, pictures, capsys
):
    """Its model, images, captions and results."""
    model, images = shutil.copytree(pipeline_folder, place / "model"), shutil.copytree(pictures, place / "images")
    for file in [*images.iterdir()]:
        file.rename(file.with_name(f"{file.stem} {place.name[:20]}{file.suffix}"))
    places = {"model": model, "images": images}
    options = ("--captions", "--preview-every", "2", "--preview-steps", "1", "--copy-every", "2")
    assert train(*options, **places, out=place / "one") == 0
    assert len(re.findall("has no caption", capsys.readouterr().err)) == 1, "green has none"
    said = interrupted(2, *options, **places, out=place / "two")
    assert f"Step 1 is saved in '{place / 'two' / 'my-toy.safetensors'}'" in said
    assert train(*options, "--resume", **places, out=place / "two") == 0
    whole, resumed = (
        {path.relative_to(out): path for path in out.rglob("*")} for out in (place / "one", place / "two")
    )
    assert resumed.keys() == whole.keys()
    for name in (name for name in whole if name.suffix == ".safetensors"):
        assert torch.equal(load_file(resumed[name])["emb_params"], load_file(whole[name])["emb_params"])
    embedding = place / "one" / "my-toy.safetensors"
    given = ["--model", model, "--embedding", embedding, "--out", place / "drawn", "--device", "cpu"]
    assert main(["generate", *map(str, given), "--prompt", "a *", "--steps", "1", "--number", "1"]) == 0
    assert main(["inspect", str(embedding)]) == 0
    assert main(["convert", str(embedding), str(place / "my-toy.pt")]) == 0
    assert str(place / "drawn") in capsys.readouterr().out


@pytest.fixture
def caseless(tmp_path) -> Iterator[Path]:
    """A folder in which a and A are one file: of Windows and macOS, or in TI_TRAIN_CASELESS."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("TI_TRAIN_CASELESS", tmp_path)))
    (folder / "a").touch()
    known = not (folder / "A").exists()
    (folder / "a").unlink()
    if known:
        pytest.skip("the file system tells a from A; TI_TRAIN_CASELESS names a folder of one that does not")
    yield folder
    shutil.rmtree(folder)


def test_on_a_file_system_without_case_two_spellings_are_one_embedding(caseless, train, interrupted, the_sentence):
    assert train("--steps", "5", name="cat", out=caseless) == 0
    first = (caseless / "cat.safetensors").read_bytes()
    learnt = load_file(caseless / "cat.safetensors")["emb_params"].tolist()
    assert train("--steps", "5", name="Cat", out=caseless) == 1
    assert "exists. Choose another --name" in the_sentence()
    assert (caseless / "cat.safetensors").read_bytes() == first
    interrupted(4, "--steps", "5", "--overwrite", name="CAT", out=caseless)
    assert (caseless / "cat.safetensors").read_bytes() == first
    assert train("--steps", "5", "--resume", name="Cat", out=caseless) == 0
    assert load_file(caseless / "CAT.safetensors")["emb_params"].tolist() == learnt
    assert [step.step for step in read_steps(caseless / "cat.csv")] == [0, 1, 2, 3, 4, 5]
    assert len(list(caseless.glob("*.safetensors"))) == 1
    with only_run(caseless / ".cat.lock", "cat"), pytest.raises(BusyError), only_run(caseless / ".Cat.lock", "Cat"):
        pass
    move(next(caseless.glob("*.safetensors")), caseless / "CAT.safetensors", "CAT")
    assert load_embedding(caseless / "cat.safetensors").provenance["name"] == "CAT"


OURS = (sys.executable, "-m", "ti_train")
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def on_read_only(folder: Path, *program: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program to which a folder is a read-only file system: in a namespace, so for nobody else."""
    mounting = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, folder]
    return subprocess.run([*map(str, [*mounting, *program])], cwd=ROOT, capture_output=True, encoding="utf-8")


@pytest.fixture
def read_only(tmp_path) -> Path:
    folder = tmp_path / "read-only"
    folder.mkdir()
    if not shutil.which("unshare") or on_read_only(folder, "true").returncode:
        pytest.skip("a user's own mounts are needed: Linux, where they are allowed")
    return folder


def test_nothing_is_written_where_images_model_and_templates_are(read_only, pipeline_folder, pictures, tmp_path):
    model, images = shutil.copytree(pipeline_folder, read_only / "model"), shutil.copytree(pictures, read_only / "toys")
    (read_only / "lines.txt").write_text("a [name]", encoding="utf-8")
    given = ["--model", model, "--images", images, "--templates", read_only / "lines.txt", "--init", "toy"]
    quick = ["--steps", "2", "--device", "cpu", "--name", "my-toy", "--out", tmp_path / "out"]
    trained = on_read_only(read_only, *OURS, "train", *given, *quick)
    assert trained.returncode == 0, trained.stderr
    assert load_embedding(tmp_path / "out" / "my-toy.safetensors").provenance["step"] == "2"


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(
    read_only, pipeline_folder, pictures, words
):
    (read_only / "my-toy.safetensors").write_bytes(words[0].read_bytes())
    given = ["--model", pipeline_folder, "--device", "cpu", "--images", pictures, "--out", read_only]
    train = ["train", *given, "--init", "toy", "--name", "my-toy", "--overwrite"]
    convert = ["convert", words[0], read_only / "my-cat.pt"]
    for command in (train, convert):
        failed = on_read_only(read_only, *OURS, *command)
        *before, sentence = failed.stderr.splitlines()
        assert failed.returncode == 1, failed.stderr
        assert all(line.startswith("Warning: ") for line in before), "no progress and no traceback"
        assert sentence.startswith("ti_train: ")
        assert str(read_only) in sentence
    assert [path.name for path in read_only.iterdir()] == ["my-toy.safetensors"]
