"""`train`: what it writes, what it says, and how it ends."""

from __future__ import annotations

import errno
import os
import re
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_host import at_forward, raising

from ti_train.__main__ import main
from ti_train.formats import config_of, load_embedding
from ti_train.training.step_log import read_steps


@pytest.fixture
def train(pipeline_folder, pictures, tmp_path):
    """Runs `train` with a few quick steps, and what is given, into tmp_path; returns the exit code."""

    def train(*more: str, model: Path = pipeline_folder, images: Path = pictures, name: str = "my-toy") -> int:
        given = ["--model", model, "--images", images, "--name", name, "--init", "toy", "--out", tmp_path]
        quick = ["--steps", "3", "--batch-size", "2", "--device", "cpu", "--dtype", "float32"]
        return main(["train", *map(str, given), *quick, *more])

    return train


def test_training_leaves_the_word_its_steps_and_a_drawing(train, tmp_path, capsys):
    assert train() == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my-toy-loss.png", "my-toy.csv", "my-toy.safetensors"]
    ((key, vectors),) = load_file(tmp_path / "my-toy.safetensors").items()
    assert (key, vectors.shape, vectors.dtype) == ("emb_params", (1, 32), torch.float32)
    assert [step.step for step in read_steps(tmp_path / "my-toy.csv")] == [0, 1, 2, 3]
    assert np.asarray(Image.open(tmp_path / "my-toy-loss.png")).std() > 0
    said = capsys.readouterr()
    assert "Training 'my-toy' on 3 images of 16 x 16 pixels: 3 steps with batch size 2." in said.out
    assert re.search(rf"Trained 'my-toy' in \d+ s: {re.escape(str(tmp_path / 'my-toy.safetensors'))}\n", said.out)
    assert "3/3" in said.err


def test_every_option_reaches_the_run(train, tmp_path):
    options = (
        "--preset Paper --lr 1e-3:2,1e-4 --accumulation 2 --num-vectors 2 --resolution 32 --seed 7 --style --captions "
        "--flip --mask alpha --square --shuffle-tags --drop-tags 0.1 --keep-tags 1 --progressive 2 "
        "--per-image-words 0.25 --coarse-weight 0.5 --preview-every 2 --preview-negative dark --preview-seed 7 "
        "--deterministic"
    )
    assert train(*options.split(), *[f"--preview-prompt={prompt}" for prompt in ("a *", "the *", "a *")]) == 0
    config = config_of(load_embedding(tmp_path / "my-toy.safetensors"))
    expected = {
        "learning_rate": "1e-3:2,1e-4", "accumulation": 2, "num_vectors": 2, "resolution": 32, "seed": 7,
        "templates": "style-captions", "flip": True, "mask": "alpha", "square": True, "schedule": "constant",
        "shuffle_tags": True, "drop_tags": 0.1, "keep_tags": 1, "progressive_every": 2, "per_image_words": 0.25,
        "coarse_weight": 0.5, "steps": 3, "batch_size": 2, "preview_every": 2, "preview_prompts": ["a *", "the *"],
        "preview_negative": "dark", "preview_seed": 7, "deterministic": True,
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    previews = sorted(path.name for path in tmp_path.glob("my-toy-step*.png"))
    assert previews == [f"my-toy-step{step:05d}-{i}.png" for step in (0, 2, 3) for i in (0, 1)]


@pytest.mark.parametrize(
    ("options", "templates"),
    [("", "object"), ("--style", "style"), ("--captions", "captions"), ("--templates style", "style")],
)
def test_templates_by_option(train, tmp_path, options, templates):
    assert train(*options.split()) == 0
    config = config_of(load_embedding(tmp_path / "my-toy.safetensors"))
    assert config["templates"] == templates
    assert config["learning_rate"] == (5e-3 if options == "--style" else 1e-2), "--style takes the preset Style"


@pytest.mark.parametrize(("line", "warned"), [("a photo of a [name]", 0), ("a photo of a [name], [filewords]", 1)])
def test_missing_captions_are_told_where_the_templates_use_them(train, tmp_path, capsys, line, warned):
    (tmp_path / "lines.txt").write_text(line, encoding="utf-8")
    assert train("--templates", str(tmp_path / "lines.txt")) == 0
    assert capsys.readouterr().err.count("green.png has no caption") == warned


@pytest.mark.parametrize("ending", [".pt", ".png"])
def test_going_on_from_a_file_of_another_tools_layout(train, words, tmp_path, ending):
    assert main(["convert", str(words[1]), str(tmp_path / f"given{ending}")]) == 0
    assert train("--init", str(tmp_path / f"given{ending}"), "--num-vectors", "2", "--lr", "0") == 0
    given, learnt = (load_file(file)["emb_params"] for file in (words[1], tmp_path / "my-toy.safetensors"))
    assert torch.equal(given, learnt)


def test_gradient_checkpointing_learns_the_same_word(train, tmp_path):
    assert train() == 0
    plain = load_file(tmp_path / "my-toy.safetensors")["emb_params"]
    assert train("--gradient-checkpointing", "--overwrite") == 0
    assert torch.allclose(load_file(tmp_path / "my-toy.safetensors")["emb_params"], plain, atol=1e-6)


def test_pictures_that_cannot_be_used_are_named(train, pictures, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.png").write_bytes((pictures / "red.png").read_bytes())
    (folder / "bad.png").write_bytes(b"")
    assert train(images=folder) == 0
    assert "Warning: Skipped bad.png" in capsys.readouterr().err


def test_pictures_of_several_folders_keep_their_shapes_and_come_as_often_as_is_said(train, pictures, tmp_path, capsys):
    (tmp_path / "wide").mkdir()
    Image.new("RGB", (120, 40)).save(tmp_path / "wide" / "a.png")
    assert train("--images", f"{tmp_path / 'wide'}:3") == 0
    assert "on 4 images of 16 x 16, 24 x 8 pixels" in capsys.readouterr().out
    assert train("--images", str(tmp_path / "wide"), "--square", "--overwrite") == 0
    assert "on 4 images of 16 x 16 pixels" in capsys.readouterr().out


def test_a_finished_word_is_not_overwritten_unasked(train, tmp_path, the_sentence):
    (tmp_path / "my-toy.safetensors").write_bytes(b"precious")
    assert train() == 1
    assert "exists. Choose another --name" in the_sentence()
    assert (tmp_path / "my-toy.safetensors").read_bytes() == b"precious"
    assert train("--overwrite") == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--steps", "0"], "steps is 0; it must be at least 1"),
        (["--name", "a/b"], "contains a character that file names must not have"),
        (["--lr", "fast"], "has an invalid part, 'fast'"),
        (["--images", "no-such-folder"], "The folder 'no-such-folder' does not exist"),
        (["--model", "no-such-model"], "'no-such-model' does not exist"),
        (["--resume"], "Nothing to resume"),
        (["--device", "cuda:99x"], "The device 'cuda:99x' is not available"),
        (["--device", "abacus"], "The device 'abacus' is not available"),
        (["--captions", "--templates", "style"], "Use --captions or --templates, not both"),
        (["--init", "none.safetensors"], "The embedding file"),
        (["--num-vectors", "75"], "The prompt does not fit"),
        (["--out", __file__], "is not writable"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_a_mistake_ends_with_1_and_one_sentence(train, the_sentence, options, why):
    assert train(*options) == 1
    assert why in the_sentence()


@pytest.fixture
def interrupted(train, capsys, monkeypatch):
    """Runs `train` with a Ctrl-C in a forward pass of its steps, counted from 1; returns what stands on stderr."""
    from ti_train.hosts.diffusers.host import DiffusersHost

    def interrupted(forward: int, *more: str) -> str:
        load = DiffusersHost.load
        with ExitStack() as hooks, monkeypatch.context() as patches:

            def loaded(*arguments):
                host = load(*arguments)
                hooks.enter_context(at_forward(host.unet, [forward], raising(KeyboardInterrupt())))
                return host

            patches.setattr(DiffusersHost, "load", loaded)
            capsys.readouterr()
            assert train(*more) == 130
            return capsys.readouterr().err

    return interrupted


def test_an_interrupted_run_says_what_is_kept_and_resumes_to_the_same_word(train, interrupted, tmp_path):
    assert train("--steps", "5") == 0
    expected = load_file(tmp_path / "my-toy.safetensors")["emb_params"]
    said = interrupted(4, "--steps", "5", "--overwrite")
    assert "Step 3 is saved in" in said
    assert "Continue from step 3 with the same command and --resume." in said
    assert (tmp_path / "my-toy-loss.png").is_file()
    assert "my-toy.safetensors is unchanged." in interrupted(1, "--steps", "5", "--resume")
    assert train("--steps", "5", "--resume") == 0
    assert torch.equal(load_file(tmp_path / "my-toy.safetensors")["emb_params"], expected)
    assert [step.step for step in read_steps(tmp_path / "my-toy.csv")] == [0, 1, 2, 3, 4, 5]
    assert not (tmp_path / "my-toy.resume").exists()


def test_an_interrupted_run_keeps_its_best_step_and_resumes_from_its_last(interrupted, tmp_path):
    said = interrupted(20, "--steps", "30")
    assert "Step 12 (lowest validation loss) is saved in" in said, "the only validated one"
    assert "Continue from step 19 with the same command and --resume." in said
    assert load_embedding(tmp_path / "my-toy.safetensors").provenance["step"] == "12"
    with safe_open(tmp_path / "my-toy.resume", framework="pt") as state:
        assert state.metadata()["step"] == "19"


def test_a_disk_that_fills_up_is_told_in_one_sentence(train, tmp_path, capsys, monkeypatch):
    """Nor can the CSV and the drawing be written then."""
    replace = os.replace

    def refuse(source, target=None):
        if target is None or (Path(target).parent == tmp_path and (tmp_path / "my-toy.csv").exists()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Image.Image, "save", lambda self, *_: refuse(self))
    assert train() == 1
    said = capsys.readouterr().err
    assert "Step 3 was saved to '" in said
    assert "Traceback" not in said


def test_another_files_table_is_not_overwritten(train, tmp_path, the_sentence):
    table = tmp_path / "my-toy.csv"
    table.write_text("file_name,text\na.png,mine\n", encoding="utf-8")
    assert train() == 1
    assert "is not the table of a training run" in the_sentence()
    assert table.read_text(encoding="utf-8") == "file_name,text\na.png,mine\n"


def test_the_reasons_are_told_when_no_image_is_left(train, tmp_path, capsys):
    folder = tmp_path / "small"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (1, 1)).save(folder / f"{i}.png")
    assert train(images=folder) == 1
    said = capsys.readouterr().err
    assert "None of the images can be used" in said
    assert all(f"Skipped {i}.png: it has 1 x 1 pixels" in said for i in range(3))


def test_templates_may_be_in_utf_16(train, tmp_path):
    (tmp_path / "mine.txt").write_bytes("a photo of a [name]\r\n".encode("utf-16"))
    assert train("--templates", str(tmp_path / "mine.txt")) == 0
