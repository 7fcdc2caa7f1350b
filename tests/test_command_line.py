"""python -m ti_train: what it writes, what it says, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_host import at_forward, raising

from ti_train.__main__ import file_name, folders, learning_rate, main
from ti_train.formats import config_of, load_embedding
from ti_train.report import read_steps

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def train(pipeline_folder, pictures, tmp_path):
    """Runs `train` with a few quick steps, and what is given, into tmp_path; returns the exit code."""

    def train(*more: str, model: Path = pipeline_folder, images: Path = pictures, name: str = "my-toy") -> int:
        given = ["--model", model, "--images", images, "--name", name, "--init", "toy", "--out", tmp_path]
        quick = ["--steps", "3", "--batch-size", "2", "--device", "cpu", "--dtype", "float32"]
        return main(["train", *map(str, given), *quick, *more])

    return train


def the_sentence(capsys) -> str:
    """All that stands on stderr: one line, for people."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ti_train: ")
    return line


# --- train ----------------------------------------------------------------------


def test_training_leaves_the_word_its_steps_and_a_drawing(train, tmp_path, capsys):
    assert train() == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my-toy-loss.png", "my-toy.csv", "my-toy.safetensors"]
    ((key, vectors),) = load_file(tmp_path / "my-toy.safetensors").items()
    assert (key, vectors.shape, vectors.dtype) == ("emb_params", (1, 32), torch.float32)
    assert [step.step for step in read_steps(tmp_path / "my-toy.csv")] == [0, 1, 2, 3]
    assert np.asarray(Image.open(tmp_path / "my-toy-loss.png")).std() > 0
    said = capsys.readouterr()
    assert "Learning 'my-toy' from 3 pictures of 16 x 16 pixels: 3 steps of 2." in said.out
    assert f"Learnt 'my-toy' in 0 s: {tmp_path / 'my-toy.safetensors'}" in said.out
    assert "3/3" in said.err


def test_every_option_reaches_the_run(train, tmp_path):
    options = (
        "--preset Paper --lr 1e-3:2,1e-4 --accumulation 2 --num-vectors 2 --resolution 32 --seed 7 --style --captions "
        "--flip --mask alpha --square --shuffle-tags --drop-tags 0.1 --keep-tags 1 --progressive 2 "
        "--per-image-words 0.25 --coarse-weight 0.5 --preview-every 2"
    )
    assert train(*options.split(), *[f"--preview-prompt={prompt}" for prompt in ("a *", "the *", "a *")]) == 0
    config = config_of(load_embedding(tmp_path / "my-toy.safetensors"))
    expected = {
        "learning_rate": "1e-3:2,1e-4", "accumulation": 2, "num_vectors": 2, "resolution": 32, "seed": 7,
        "templates": "style-captions", "flip": True, "mask": "alpha", "square": True, "schedule": "constant",
        "shuffle_tags": True, "drop_tags": 0.1, "keep_tags": 1, "progressive_every": 2, "per_image_words": 0.25,
        "coarse_weight": 0.5, "steps": 3, "batch_size": 2, "preview_every": 2, "preview_prompts": ["a *", "the *"],
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
    assert "from 4 pictures of 16 x 16, 24 x 8 pixels" in capsys.readouterr().out
    assert train("--images", str(tmp_path / "wide"), "--square", "--overwrite") == 0
    assert "from 4 pictures of 16 x 16 pixels" in capsys.readouterr().out


def test_a_folder_is_weighed_by_a_number_behind_it_and_never_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("2024_holiday", "odd:2"):
        (tmp_path / name).mkdir()
    given = ["2024_holiday", "odd:2", "odd:2:4", "cats:3", "C:\\cats:3", "dogs:0", ":5"]
    paths = ["2024_holiday", "odd:2", "odd:2", "cats", "C:\\cats", "dogs:0", ":5"]
    repeats = [1, 4, 4, 3, 3, 1, 1]
    assert folders(given) == dict(zip(map(Path, paths), repeats, strict=True))


def test_a_finished_word_is_not_overwritten_unasked(train, tmp_path, capsys):
    (tmp_path / "my-toy.safetensors").write_bytes(b"precious")
    assert train() == 1
    assert "exists. Choose another --name" in the_sentence(capsys)
    assert (tmp_path / "my-toy.safetensors").read_bytes() == b"precious"
    assert train("--overwrite") == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--steps", "0"], "steps is 0; it must be at least 1"),
        (["--name", "a/b"], "has a character that file names cannot have"),
        (["--lr", "fast"], "cannot be read at 'fast'"),
        (["--images", "no-such-folder"], "There is no folder 'no-such-folder'"),
        (["--model", "no-such-model"], "'no-such-model' is no model folder"),
        (["--resume"], "There is nothing to resume"),
        (["--device", "cuda:99x"], "The device 'cuda:99x' is not there"),
        (["--device", "abacus"], "The device 'abacus' is not there"),
        (["--captions", "--templates", "style"], "Give --captions or --templates, not both"),
        (["--init", "none.safetensors"], "There is no embedding file"),
        (["--num-vectors", "76"], "The prompt does not fit"),
        (["--out", __file__], "cannot be written to"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_a_mistake_ends_with_1_and_one_sentence(train, capsys, options, why):
    assert train(*options) == 1
    assert why in the_sentence(capsys)


def test_an_interrupted_run_says_what_is_kept_and_resumes_to_the_same_word(train, tmp_path, capsys, monkeypatch):
    from ti_train.hosts.diffusers import DiffusersHost

    assert train("--steps", "5") == 0
    expected = load_file(tmp_path / "my-toy.safetensors")["emb_params"]
    load = DiffusersHost.load
    with ExitStack() as hooks:

        def interrupted(*arguments):
            host = load(*arguments)
            hooks.enter_context(at_forward(host.unet, [4], raising(KeyboardInterrupt())))
            return host

        monkeypatch.setattr(DiffusersHost, "load", interrupted)
        capsys.readouterr()
        assert train("--steps", "5", "--overwrite") == 130
        said = capsys.readouterr().err
    assert "Step 3 is kept" in said
    assert "--resume goes on from there" in said
    assert (tmp_path / "my-toy-loss.png").is_file()
    monkeypatch.setattr(DiffusersHost, "load", load)
    assert train("--steps", "5", "--resume") == 0
    assert torch.equal(load_file(tmp_path / "my-toy.safetensors")["emb_params"], expected)
    assert [step.step for step in read_steps(tmp_path / "my-toy.csv")] == [0, 1, 2, 3, 4, 5]
    assert not (tmp_path / "my-toy.resume").exists()


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
    assert "Step 3 is saved in '" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "rate"), [(None, None), ("0.005", 0.005), ("5e-3:100, 1e-3", "5e-3:100, 1e-3"), ("fast", "fast")]
)
def test_a_plain_rate_is_a_number_and_takes_the_presets_schedule(text, rate):
    assert learning_rate(text) == rate


# --- generate -------------------------------------------------------------------


@pytest.fixture
def words(tmp_path) -> list[Path]:
    """Two learnt words as files, of one and of two vectors."""
    paths = [tmp_path / "my-cat.safetensors", tmp_path / "my-dog.safetensors"]
    for seed, path in enumerate(paths):
        vectors = 0.3 * torch.randn(seed + 1, 32, generator=torch.Generator().manual_seed(seed))
        save_file({"emb_params": vectors}, path)
    return paths


def generate(model: Path, out: Path, prompt: str, words: list[Path], *more: str) -> list[str]:
    given = ["--model", model, "--out", out, "--prompt", prompt]
    given += [part for word in words for part in ("--embedding", word)]
    assert main(["generate", *map(str, given), "--steps", "2", "--device", "cpu", *more]) == 0
    return sorted(path.name for path in out.iterdir())


def test_generating_with_two_words(pipeline_folder, words, tmp_path, capsys):
    made = generate(pipeline_folder, tmp_path / "out", "<my-cat> and <my-dog>", words, "--number", "2", "--seed", "5")
    assert made == ["my-cat-and-my-dog-5.png", "my-cat-and-my-dog-6.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in made]
    first, second = (np.asarray(Image.open(tmp_path / "out" / name)) for name in made)
    assert first.shape == (16, 16, 3)
    assert (first != second).any()


def test_the_word_changes_the_picture_and_the_same_seed_repeats_it(pipeline_folder, words, tmp_path):
    def pixels(out: str, prompt: str) -> bytes:
        (name,) = generate(pipeline_folder, tmp_path / out, prompt, words[:1], "--number", "1")
        return Image.open(tmp_path / out / name).tobytes()

    assert pixels("a", "a *") == pixels("b", "a *") == pixels("c", "a <my-cat>")
    assert pixels("a", "a *") != pixels("d", "a cat")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "No model is given"),
        (["--model", "no-such-model"], "is no model folder"),
        (["--model", "MODEL", "--embedding", "none.safetensors"], "There is no embedding file"),
        (["--model", "MODEL", "--out", __file__], "test_command_line.py"),
    ],
)
def test_generating_from_what_is_not_there(pipeline_folder, capsys, arguments, why):
    arguments = [str(pipeline_folder) if a == "MODEL" else a for a in arguments]
    assert main(["generate", "--prompt", "a *", "--steps", "1", "--device", "cpu", *arguments]) == 1
    assert why in the_sentence(capsys)


def test_a_word_of_another_family_is_refused_with_both_widths(pipeline_folder, tmp_path, capsys):
    save_file({"emb_params": torch.ones(1, 768)}, tmp_path / "sd1.safetensors")
    command = ["generate", "--model", pipeline_folder, "--embedding", tmp_path / "sd1.safetensors", "--prompt", "*"]
    assert main([*map(str, command), "--device", "cpu"]) == 1
    assert "width 768, but the model's text encoder wants 32" in the_sentence(capsys)


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


# --- inspect --------------------------------------------------------------------


def test_inspecting_needs_no_model(words, capsys):
    assert main(["inspect", str(words[1])]) == 0
    said = capsys.readouterr().out
    assert "  emb_params:\n    vectors: 2\n    dim: 32\n    dtype: float32\n" in said


def test_inspecting_as_json_with_a_model(pipeline_folder, words, capsys):
    assert main(["inspect", str(words[1]), "--model", str(pipeline_folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {key: facts[key] for key in ("name", "layout", "step", "base_model")} == {
        "name": "my-dog",
        "layout": "safetensors, one tensor 'emb_params'",
        "step": None,
        "base_model": None,
    }
    (encoder,) = facts["encoders"].values()
    assert (encoder["vectors"], encoder["dim"], encoder["dtype"], len(encoder["norms"])) == (2, 32, "float32", 2)
    assert [len(nearest) for nearest in encoder["nearest words"]] == [5, 5]
    assert facts["provenance"]["config"] == {}


def test_inspecting_garbage(tmp_path, capsys):
    (tmp_path / "cat.safetensors").write_bytes(b"garbage")
    assert main(["inspect", str(tmp_path / "cat.safetensors")]) == 1
    assert "is no embedding that can be read, or is damaged" in the_sentence(capsys)


def test_inspecting_two_encoders_compares_each_with_its_own(pipelines, tmp_path, capsys):
    from ti_train.hosts.diffusers import DiffusersHost

    folder = pipelines(family="sdxl")
    host = DiffusersHost.load(folder, "cpu", "float32")
    save_file({e: host.vocabulary(e).rows("cat").contiguous() for e in host.widths}, tmp_path / "cat.safetensors")
    assert main(["inspect", str(tmp_path / "cat.safetensors"), "--model", str(folder), "--json"]) == 0
    encoders = json.loads(capsys.readouterr().out)["encoders"]
    assert list(encoders) == ["clip_l", "clip_g"]
    assert [encoder["dim"] for encoder in encoders.values()] == list(host.widths.values())
    for encoder in encoders.values():
        assert encoder["nearest words"][0][0] == ["cat", 1.0]


def test_inspecting_a_file_of_several_words_asks_which(tmp_path, capsys):
    bundle = {"bundle_emb.cat.clip_l": torch.ones(1, 8), "bundle_emb.dog.clip_l": torch.ones(2, 8)}
    save_file(bundle, tmp_path / "lora.safetensors")
    assert main(["inspect", str(tmp_path / "lora.safetensors")]) == 1
    assert "'cat' (1 vector(s) of 8); 'dog' (2 vector(s) of 8). Choose one" in the_sentence(capsys)
    assert main(["inspect", str(tmp_path / "lora.safetensors"), "--word", "dog", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoders"]["clip_l"]["vectors"] == 2


# --- convert and merge ----------------------------------------------------------


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".png"])
def test_converting_to_what_the_ending_says(words, tmp_path, capsys, ending):
    out = tmp_path / f"new{ending}"
    assert main(["convert", str(words[1]), str(out)]) == 0
    assert re.fullmatch(rf"Wrote .*new{ending}: 2 x 32 \(emb_params\), fp32, as \w+\.\n", capsys.readouterr().out)
    old, new = load_embedding(words[1]), load_embedding(out)
    assert torch.equal(*(word.vectors["emb_params"] for word in (old, new)))
    assert new.name == "new"


def test_converting_to_fp16_with_a_strength_says_what_rounding_costs(words, tmp_path, capsys):
    command = ["convert", words[1], tmp_path / "new.safetensors", "--dtype", "fp16", "--norm", "2", "--strength", "0.5"]
    assert main([*map(str, command), "--name", "other"]) == 0
    assert re.search(r"Rounding to fp16 changes a value by \S+ at most, a vector by \S+ of", capsys.readouterr().out)
    read = load_embedding(tmp_path / "new.safetensors")
    assert read.vectors["emb_params"].norm(dim=1).tolist() == pytest.approx([1, 1], rel=1e-3)
    assert read.name == "other"


def test_sdxl_goes_to_diffusers_two_files_and_back(tmp_path):
    vectors = {"clip_l": torch.randn(1, 768), "clip_g": torch.randn(1, 1280)}
    save_file(vectors, tmp_path / "x.safetensors")
    there = [str(tmp_path / name) for name in ("y.safetensors", "y_2.safetensors")]
    assert main(["convert", str(tmp_path / "x.safetensors"), there[0], "--to", "diffusers"]) == 0
    assert main(["convert", *there, str(tmp_path / "z.safetensors")]) == 0
    back = load_embedding(tmp_path / "z.safetensors").vectors
    assert all(torch.equal(back[encoder], v) for encoder, v in vectors.items())


def test_output_vectors_that_are_left_out_are_told(tmp_path, capsys):
    save_file({"emp_params": torch.ones(1, 8), "emp_params_out": torch.ones(1, 8)}, tmp_path / "x.safetensors")
    assert main(["convert", str(tmp_path / "x.safetensors"), str(tmp_path / "y.pt")]) == 0
    assert "The vectors for the encoders' output are left out" in capsys.readouterr().out
    assert (
        main(["convert", str(tmp_path / "x.safetensors"), str(tmp_path / "z.safetensors"), "--to", "onetrainer"]) == 0
    )
    assert "left out" not in capsys.readouterr().out


def test_merging(words, tmp_path, capsys):
    out = tmp_path / "both.pt"
    assert main(["merge", *map(str, words), str(out), "--weights", "1,0.5"]) == 0
    assert "3 x 32 (emb_params), fp32, as a1111" in capsys.readouterr().out
    one, two = (load_embedding(word).vectors["emb_params"] for word in words)
    assert torch.equal(load_embedding(out).vectors["emb_params"], torch.cat([one, 0.5 * two]))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["convert", "ONE"], "Give the file to read"),
        (["convert", "ONE", "ONE", "ONE", "OUT.pt"], "Give the file to read"),
        (["convert", "ONE", "OUT.bin"], "an embedding is written as .safetensors, .pt, .png"),
        (["convert", "ONE", "OUT.pt", "--to", "png"], "png is written as .png"),
        (["convert", "ONE", "ONE"], "exists. Choose another name, or give --overwrite"),
        (["convert", "ONE", "OUT/none/x.pt"], "There is no folder"),
        (["convert", "ONE", "OUT.pt", "--name", "a/b"], "has a character that file names cannot have"),
        (["convert", "none.pt", "OUT.pt"], "There is no embedding file 'none.pt'"),
        (["convert", "ONE", "OUT.pt", "--word", "dog"], "holds no word 'dog'"),
        (["merge", "ONE", "TWO", "OUT.pt", "--how", "sum"], "The words have 1 and 2 vectors"),
        (["merge", "ONE", "OUT.pt"], "give two words or more"),
    ],
)
def test_converting_and_merging_what_cannot_be(words, tmp_path, capsys, arguments, why):
    places = {"ONE": str(words[0]), "TWO": str(words[1]), "OUT": str(tmp_path / "out")}
    assert main([re.sub("ONE|TWO|OUT", lambda match: places[match[0]], a) for a in arguments]) == 1
    assert why in the_sentence(capsys)
    assert not list(tmp_path.glob("out*"))


# --- As people start it ---------------------------------------------------------


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "ti_train", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_without_a_command_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: python -m ti_train" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [[], ["train"], ["generate"], ["inspect"], ["convert"], ["merge"], ["demo"]], ids=lambda c: " ".join(c)
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_a_mistake_is_no_traceback(tmp_path):
    process = started("inspect", tmp_path / "none.safetensors")
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(r"ti_train: There is no embedding file '[^\n]*'\.\n", err)


NO_SIGINT = os.name == "nt" or signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # ignored by jobs in the background


@pytest.mark.skipif(NO_SIGINT, reason="no SIGINT can be sent to a single process here")
def test_ctrl_c_in_mid_run_keeps_the_word_and_resume_completes_it(pipeline_folder, pictures, tmp_path):
    command = ["train", "--model", pipeline_folder, "--images", pictures, "--out", tmp_path, "--name", "my-toy"]
    command += ["--init", "toy", "--steps", "100", "--batch-size", "1", "--device", "cpu", "--dtype", "float32"]
    process = started(*command)
    said = []
    for line in process.stderr:
        said.append(line)
        if re.search(r" [1-9]\d*/100 ", line):
            break
    process.send_signal(signal.SIGINT)
    *more, kept, interrupted = process.communicate()[1].splitlines()
    assert process.returncode == 130
    assert all(line.startswith("[") for line in said + more), "no library and no traceback adds to the progress"
    assert interrupted == "Interrupted."
    step = int(re.findall(r"Step (\d+) is kept in", kept)[0])
    assert 0 < step < 100
    assert load_embedding(tmp_path / "my-toy.safetensors").provenance["step"] == str(step)
    assert main([*map(str, command), "--resume"]) == 0
    assert [step.step for step in read_steps(tmp_path / "my-toy.csv")] == list(range(101))
