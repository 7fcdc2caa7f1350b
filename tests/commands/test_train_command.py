"""`train`: what it writes, what it says, and how it ends."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
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
from ti_train.errors import UserError
from ti_train.formats import config_of, load_embedding
from ti_train.training.step_log import read_steps

ROOT = Path(__file__).resolve().parents[2]


def test_training_leaves_the_word_its_steps_and_a_drawing(train, tmp_path, capsys):
    assert train() == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my-toy-loss.png", "my-toy.csv", "my-toy.safetensors"]
    ((key, vectors),) = load_file(tmp_path / "my-toy.safetensors").items()
    assert (key, vectors.shape, vectors.dtype) == ("emb_params", (1, 32), torch.float32)
    assert [step.step for step in read_steps(tmp_path / "my-toy.csv")] == [0, 1, 2, 3]
    assert np.asarray(Image.open(tmp_path / "my-toy-loss.png")).std() > 0
    said = capsys.readouterr()
    assert "Training 'my-toy' on 3 images of 16 x 16 pixels: 3 steps with batch size 2." in said.out
    assert re.search(
        rf"Trained 'my-toy' in \d+ s: {re.escape(str(tmp_path / 'my-toy.safetensors'))}\. Step 3 is kept", said.out
    )
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


def test_bytes_of_no_encoding_in_a_prompt_are_one_unknown_letter(train, tmp_path):
    """What Python makes of them on a command line."""
    assert train("--init", "t\udcffoy", "--preview-prompt", "a *, caf\udce9", "--preview-every", "3") == 0
    config = config_of(load_embedding(tmp_path / "my-toy.safetensors"))
    assert (config["init"], config["preview_prompts"]) == ("t\ufffdoy", ["a *, caf\ufffd"])


@pytest.mark.parametrize(
    ("options", "templates"),
    [
        ("", "object"),
        ("--style", "style"),
        ("--captions", "captions"),
        ("--templates style", "style"),
        ("--style --captions", "style-captions"),
        ("--preset Style --captions", "style-captions"),
    ],
)
def test_templates_by_option(train, tmp_path, options, templates):
    assert train(*options.split()) == 0
    config = config_of(load_embedding(tmp_path / "my-toy.safetensors"))
    assert config["templates"] == templates
    preset = "--style" in options or "--preset Style" in options
    assert config["learning_rate"] == (5e-3 if preset else 1e-2), "--style takes the preset Style"


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


@pytest.mark.parametrize("text", ["embedding:my-dog", "embedding:my-dog.safetensors", "Embedding: my-dog"])
def test_an_initial_text_as_in_a_prompt_is_the_embedding_of_that_name(train, words, tmp_path, text):
    assert train("--init", text, "--lr", "0") == 0
    given, learnt = (load_file(file)["emb_params"] for file in (words[1], tmp_path / "my-toy.safetensors"))
    assert torch.equal(given, learnt), "both of its vectors"


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


def test_a_name_with_a_folder_puts_all_files_there(train, tmp_path):
    assert train("--preview-prompt", "a <my-toy>", name="pets/my-toy.safetensors") == 0
    assert {path.name for path in (tmp_path / "pets").iterdir()} >= {"my-toy.safetensors", "my-toy.csv"}
    assert load_embedding(tmp_path / "pets" / "my-toy.safetensors").provenance["name"] == "my-toy"


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
        (["--name", "a b"], "Use a name such as a-b"),
        (["--name", "caf\udce9"], "Use a name such as caf."),
        (["--lr", "fast"], "has an invalid part, 'fast'"),
        (["--images", "no-such-folder"], "The folder 'no-such-folder' does not exist"),
        (["--model", "no-such-model"], "'no-such-model' does not exist"),
        (["--resume"], "Nothing to resume"),
        (["--device", "cuda:99x"], "The device 'cuda:99x' is not available"),
        (["--device", "abacus"], "The device 'abacus' is not available"),
        (["--captions", "--templates", "style"], "Use --captions or --templates, not both"),
        (["--init", "none.safetensors"], "The embedding file"),
        (["--init", "embedding:none"], "The embedding file 'none.safetensors'"),
        (["--num-vectors", "75"], "The prompt does not fit"),
        (["--out", __file__], "is not writable"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_a_mistake_ends_with_1_and_one_sentence(train, the_sentence, options, why):
    assert train(*options) == 1
    assert why in the_sentence()


def test_an_interrupted_run_says_what_is_kept_and_resumes_to_the_same_word(train, interrupted, tmp_path):
    assert train("--steps", "5") == 0
    expected = load_file(tmp_path / "my-toy.safetensors")["emb_params"]
    said = interrupted(4, "--steps", "5", "--overwrite")
    assert re.search(r"Step 3 is saved in '.*my-toy.resume'; the earlier 'my-toy.safetensors' is unchanged\.", said)
    assert torch.equal(load_file(tmp_path / "my-toy.safetensors")["emb_params"], expected)
    assert "Continue from step 3 with the same command and --resume." in said
    assert (tmp_path / "my-toy-loss.png").is_file()
    assert "my-toy.safetensors' is unchanged." in interrupted(1, "--steps", "5", "--resume")
    assert train("--steps", "5", "--resume") == 0
    assert torch.equal(load_file(tmp_path / "my-toy.safetensors")["emb_params"], expected)
    assert [step.step for step in read_steps(tmp_path / "my-toy.csv")] == [0, 1, 2, 3, 4, 5]
    assert not (tmp_path / "my-toy.resume").exists()


def test_a_new_name_has_its_embedding_after_an_interruption_too(interrupted, tmp_path):
    said = interrupted(20, "--steps", "30")
    assert re.search(r"Step 19 is saved in '.*my-toy.safetensors'\. Continue from step 19 with the same command", said)
    assert load_embedding(tmp_path / "my-toy.safetensors").provenance["step"] == "19"
    with safe_open(tmp_path / "my-toy.resume", framework="pt") as state:
        assert state.metadata()["step"] == "19"


def test_a_run_that_fails_says_how_to_continue_too(train, tmp_path, capsys, monkeypatch):
    from ti_train.hosts.diffusers.host import DiffusersHost

    load = DiffusersHost.load

    def loaded(*arguments):
        host = load(*arguments)
        hooks.enter_context(at_forward(host.unet, [3], raising(UserError("A cable was pulled."))))
        return host

    with ExitStack() as hooks:
        monkeypatch.setattr(DiffusersHost, "load", loaded)
        assert train() == 1
    saved, error = capsys.readouterr().err.splitlines()[-2:]
    assert "Continue from step 2 with the same command and --resume." in saved
    assert error == "ti_train: A cable was pulled."


def test_an_interrupted_run_is_not_trained_anew_unasked(train, interrupted, tmp_path, the_sentence):
    """Also where it has left no embedding, as after a power cut."""
    interrupted(4, "--steps", "5")
    (tmp_path / "my-toy.safetensors").unlink()
    state = (tmp_path / "my-toy.resume").read_bytes()
    assert train("--steps", "5") == 1
    assert "my-toy.resume' exists; its run was interrupted after step 3: use --resume to continue it." in the_sentence()
    assert (tmp_path / "my-toy.resume").read_bytes() == state


def test_numbered_copies_can_be_asked_for(train, tmp_path):
    assert train("--copy-every", "2") == 0
    assert load_embedding(tmp_path / "my-toy-steps" / "my-toy-000002.safetensors").provenance["step"] == "2"


# --- Killed ---------------------------------------------------------------------


@pytest.fixture
def started(pipeline_folder, pictures, tmp_path):
    """Starts `train` in a process of its own, and waits until it has trained some steps."""
    processes: list[subprocess.Popen] = []

    def started(*more: str, steps: int = 0) -> subprocess.Popen:
        given = ["--model", pipeline_folder, "--images", pictures, "--name", "my-toy", "--init", "toy"]
        quick = ["--out", tmp_path, "--batch-size", "2", "--device", "cpu", "--dtype", "float32", "--seed", "1"]
        log = tmp_path / "my-toy.csv"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "ti_train", "train", *map(str, given + quick), *more]
        processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        deadline = time.monotonic() + 120
        while not log.is_file() or log.read_text().count("\n") < steps + 2:
            assert processes[-1].poll() is None, processes[-1].stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
@pytest.mark.parametrize("steps", [0, 1, 7, 40])
def test_a_run_that_is_killed_leaves_the_earlier_embedding_and_can_be_continued(
    train, started, tmp_path, capsys, steps
):
    assert train() == 0
    earlier = (tmp_path / "my-toy.safetensors").read_bytes()
    process = started("--steps", "100000", "--checkpoint-every", "3", "--overwrite", steps=steps)
    time.sleep(random.Random(steps).random() / 10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "my-toy.safetensors").read_bytes() == earlier
    assert {path.suffix for path in tmp_path.glob("*.safetensors")} == {".safetensors"}, "no half a file"
    if steps >= 7:
        assert train("--overwrite") == 0, "the lock that it has left locks nothing"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
def test_killed_again_and_again_it_ends_as_if_it_never_was(train, started, tmp_path):
    many = ("--steps", "120", "--seed", "1", "--checkpoint-every", "2")
    assert train(*many) == 0
    expected = load_file(tmp_path / "my-toy.safetensors")["emb_params"]
    (tmp_path / "my-toy.safetensors").unlink()
    resumed: tuple[str, ...] = ()
    for steps in (4, 9, 15):
        process = started(*many, *resumed, steps=steps)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed = ("--resume",)
        assert load_embedding(tmp_path / "my-toy.safetensors").provenance["step"] != "0"
    assert train(*many, "--resume") == 0
    assert torch.equal(load_file(tmp_path / "my-toy.safetensors")["emb_params"], expected)


@pytest.mark.slow
def test_the_second_of_two_runs_of_a_name_is_told_and_the_first_is_left_alone(train, started, tmp_path, the_sentence):
    process = started("--steps", "100000", steps=3)
    assert train("--overwrite") == 1
    assert f"'my-toy' is being trained by another run (process {process.pid} on " in the_sentence()
    assert process.poll() is None
    assert len(read_steps(tmp_path / "my-toy.csv")) > 3, "its log is its own"


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
