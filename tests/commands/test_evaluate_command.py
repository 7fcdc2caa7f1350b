"""`evaluate`: what it writes, that it goes on, and how it ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ti_train.__main__ import main
from ti_train.evaluation.evaluate import PAPERS_PROMPTS


@pytest.fixture
def words(tmp_path) -> list[Path]:
    """Two words as files; the first says that it began with "toy"."""
    paths = [tmp_path / "my-cat.safetensors", tmp_path / "my-dog.safetensors"]
    for seed, path in enumerate(paths):
        vectors = 0.3 * torch.randn(1, 32, generator=torch.Generator().manual_seed(seed))
        save_file({"emb_params": vectors}, path, {} if seed else {"config": json.dumps({"init": "toy"})})
    return paths


@pytest.fixture
def run(pipeline_folder, pictures, clip_weights, words, tmp_path):
    """Runs `evaluate` on a small pipeline with a small random CLIP, and what is given, into tmp_path/out."""

    def run(*more: str, embeddings: Sequence[Path] = words) -> int:
        given = ["--model", pipeline_folder, "--images", pictures, "--out", tmp_path / "out", "--device", "cpu"]
        given += [part for word in embeddings for part in ("--embedding", word)]
        clip = ["--clip-model", "tiny-clip", "--clip-weights", clip_weights]
        return main(["evaluate", *map(str, [*given, *clip]), "--number", "2", "--steps", "2", *more])

    return run


def figures(out: Path) -> dict[str, list[str]]:
    with (out / "evaluation.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[:4] == ["label", "kind", "image_similarity", "text_similarity"]
    return {row[0]: row[1:] for row in rows}


def test_its_help_says_what_the_gallery_is_in_one_sentence(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "folder with a subfolder of images for each look-alike: do the samples find their own subject" in told


def test_it_writes_a_table_a_plot_and_every_sample(run, tmp_path, capsys):
    assert run() == 0
    said, out = capsys.readouterr(), tmp_path / "out"
    assert list(figures(out)) == ["training pictures", "toy", "my-cat", "my-dog"]
    assert 'initial text "toy"' in said.out
    assert "54/54" in said.err, "3 subjects, 9 prompts, 2 samples"
    assert sum(1 for _ in out.rglob("samples/*/*.png")) == 54
    whole = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert whole["settings"]["judge"].startswith("CLIP tiny-clip")
    assert (whole["settings"]["number"], whole["settings"]["steps"], whole["settings"]["side"]) == (2, 2, 16)
    assert Image.open(out / "evaluation.png").size == (900, 620)


def test_what_of_an_edit_prompt_is_not_read_is_told(run, tmp_path, capsys):
    (tmp_path / "edits.txt").write_bytes(("* with <my-dog>\na *" + " red cat" * 99).encode("utf-16"))
    assert run("--prompts", str(tmp_path / "edits.txt")) == 0
    said = capsys.readouterr().err
    assert "<my-dog> in the prompt '* with <my-dog>' is read as plain text" in said
    assert "tokens, and the text encoder reads" in said


def test_a_style_is_measured_with_the_papers_style_prompts(run, tmp_path):
    assert run("--style") == 0
    whole = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert whole["settings"]["prompts"] == list(PAPERS_PROMPTS["style"])
    assert list(whole["scores"][0]["edits"]) == list(PAPERS_PROMPTS["style"].edits)


def test_the_command_goes_on_after_an_interruption(run, words, tmp_path, monkeypatch, capsys):
    from ti_train.hosts.diffusers.host import DiffusersHost

    assert run() == 0
    expected = figures(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")
    sample, batches = DiffusersHost.sample, []

    def counted(host, request, given):
        batches.append(request.prompts[0])
        if len(batches) == 12:
            raise KeyboardInterrupt
        return sample(host, request, given)

    monkeypatch.setattr(DiffusersHost, "sample", counted)
    capsys.readouterr()
    assert run() == 130
    said = capsys.readouterr()
    assert "the same command continues later" in said.out
    assert said.err.splitlines()[-1] == "Interrupted."
    assert sum(1 for _ in (tmp_path / "out").rglob("*.png")) == 22
    assert run() == 0
    assert len(batches) == 12 + 27 - 11
    assert figures(tmp_path / "out") == expected


def test_without_an_initial_word_that_reference_is_missed(run, words, tmp_path, capsys):
    assert run("--prompts", str(edits(tmp_path)), embeddings=words[1:]) == 0
    assert "the embedding files have no initial text to use as a reference" in capsys.readouterr().err.lower()
    assert run("--prompts", str(edits(tmp_path)), "--init", "dog", embeddings=words[1:]) == 0
    assert list(figures(tmp_path / "out")) == ["training pictures", "dog", "my-dog"]


def edits(folder: Path) -> Path:
    (folder / "edits.txt").write_text("a red *", encoding="utf-8")
    return folder / "edits.txt"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--clip-weights", ""], "The evaluation needs CLIP weights"),
        (["--clip-model", "no-such-clip"], "open_clip has no model 'no-such-clip'"),
        (["--images", "no-such-folder"], "The folder 'no-such-folder' does not exist"),
        (["--prompts", "no-such-file"], "The prompt file 'no-such-file' cannot be read"),
        (["--embedding", "none.safetensors"], "The embedding file 'none.safetensors'"),
        (["--number", "0"], "--number is 0"),
        (["--resolution", "20"], "--resolution is 20"),
    ],
)
def test_a_mistake_ends_with_1_and_one_sentence(run, capsys, options, why):
    assert run(*options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ti_train: ")
    assert why in line


def test_two_words_of_one_name_are_refused(run, words, tmp_path, capsys):
    other = tmp_path / "other" / words[0].name
    other.parent.mkdir()
    other.write_bytes(words[1].read_bytes())
    assert run(embeddings=[words[0], other]) == 1
    assert "Two embedding files are named" in capsys.readouterr().err


def test_other_settings_in_the_same_folder_are_told(run, tmp_path, capsys):
    assert run("--prompts", str(edits(tmp_path))) == 0
    assert run("--prompts", str(edits(tmp_path)), "--steps", "3") == 1
    assert "steps 2, now 3" in capsys.readouterr().err


def test_of_a_file_for_several_encoders_what_fits_is_measured_and_told(run, words, tmp_path, capsys):
    rows = 0.3 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    save_file({"clip_l": rows, "clip_g": torch.ones(1, 48)}, tmp_path / "both.safetensors")
    assert run(embeddings=[words[0], tmp_path / "both.safetensors"]) == 0
    assert "'both' is used for clip_l only. The model does not use those for clip_g." in capsys.readouterr().err
    measured = figures(tmp_path / "out")
    assert measured["both"] == measured["my-cat"], "the same vectors"
