"""`generate`: pictures with words, from the same seed the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ti_train.__main__ import main
from ti_train.editability import recorded
from ti_train.embedding import Embedding
from ti_train.formats import save_embedding
from ti_train.host import SampleRequest, Slot
from ti_train.hosts.diffusers.host import DiffusersHost

ONE = ("--number", "1")


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


def test_the_pictures_of_another_word_replace_none(pipeline_folder, words, tmp_path):
    out = tmp_path / "out"
    (first,) = generate(pipeline_folder, out, "a *", words[:1], *ONE)
    before = (out / first).read_bytes()
    assert generate(pipeline_folder, out, "a *", words[1:], *ONE) == ["a-0-2.png", "a-0.png"]
    assert (out / first).read_bytes() == before
    assert generate(pipeline_folder, out, "a *", words[:1], *ONE) == ["a-0-2.png", "a-0.png"], "it is there already"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--model", "no-such-model"], "'no-such-model' does not exist"),
        (["--model", "MODEL", "--embedding", "none.safetensors"], "The embedding file"),
        (["--model", "MODEL", "--out", __file__], "test_generate_command.py"),
        (["--model", "MODEL", "--resolution", "20"], "--resolution is 20; it must be a multiple of 8"),
        (["--model", "MODEL", "--steps", "0"], "--steps is 0; it must be at least 1"),
        (["--model", "MODEL", "--number", "0"], "--number is 0; it must be at least 1"),
    ],
)
def test_generating_from_what_is_not_there(pipeline_folder, the_sentence, arguments, why):
    arguments = [str(pipeline_folder) if a == "MODEL" else a for a in arguments]
    assert main(["generate", "--prompt", "a *", "--steps", "1", "--device", "cpu", *arguments]) == 1
    assert why in the_sentence()


def test_a_word_of_another_family_is_refused_with_both_widths(pipeline_folder, tmp_path, the_sentence):
    save_file({"emb_params": torch.ones(1, 768)}, tmp_path / "sd1.safetensors")
    command = ["generate", "--model", pipeline_folder, "--embedding", tmp_path / "sd1.safetensors", "--prompt", "*"]
    assert main([*map(str, command), "--device", "cpu"]) == 1
    assert "width 768, but the model's text encoder needs 32" in the_sentence()


def test_two_files_of_one_name_are_told_apart_by_no_prompt(pipeline_folder, words, tmp_path, the_sentence):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / words[0].name
    other.write_bytes(words[1].read_bytes())
    files = [str(part) for word in (words[0], other) for part in ("--embedding", word)]
    assert main(["generate", "--model", str(pipeline_folder), *files, "--prompt", "a *"]) == 1
    assert "Two embedding files are named 'my-cat'. Rename one" in the_sentence()


def test_a_word_in_the_negative_prompt_alone_is_used(pipeline_folder, words, tmp_path, capsys):
    generate(pipeline_folder, tmp_path / "out", "a sketch", words[:1], "--number", "1", "--negative", "<my-cat>")
    assert "Warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "warned"),
    [
        ("a <my-cta>", "Did you mean <my-cat>?"),
        ("<my-cat>" + " a red cat" * 40, "tokens, and the text encoder reads"),
    ],
)
def test_what_of_a_prompt_is_not_read_is_told(pipeline_folder, words, tmp_path, capsys, prompt, warned):
    generate(pipeline_folder, tmp_path / "out", prompt, words[:1], "--number", "1")
    assert warned in capsys.readouterr().err


@pytest.mark.parametrize(("prompt", "warned"), [("a my-cat", True), ("a *", True), ("a <my-cat>", False)])
def test_a_prompt_without_any_of_the_words_is_told(pipeline_folder, words, tmp_path, capsys, prompt, warned):
    generate(pipeline_folder, tmp_path / "out", prompt, words, "--number", "1")
    assert ("Write <my-cat> or <my-dog> in the prompt." in capsys.readouterr().err) == warned


def test_several_editabilities_make_one_labelled_sheet(pipeline_folder, tmp_path):
    vectors, initial = {"emb_params": torch.full((1, 32), 0.5)}, {"clip_l": torch.eye(1, 32)}
    save_embedding(Embedding("my-cat", vectors, recorded(initial)), tmp_path / "my-cat.safetensors")
    words, more = [tmp_path / "my-cat.safetensors"], ("--number", "1", "--editability", "0", "0.3")
    made = generate(pipeline_folder, tmp_path / "out", "a *", words, *more)
    assert made == ["a-editability-0-0.png", "a-editability-0.3-0.png", "a-editability.png"]
    plain, turned = (Image.open(tmp_path / "out" / name).tobytes() for name in made[:2])
    assert plain != turned
    (alone,) = generate(pipeline_folder, tmp_path / "alone", "a *", words, "--number", "1")
    assert Image.open(tmp_path / "alone" / alone).tobytes() == plain


def test_of_a_file_for_several_encoders_what_fits_is_used_and_told(pipeline_folder, tmp_path, capsys):
    rows = 0.3 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    save_file({"emb_params": rows}, tmp_path / "alone.safetensors")
    save_file({"clip_l": rows, "clip_g": torch.ones(1, 48)}, tmp_path / "both.safetensors")
    made = {}
    for name in ("alone", "both"):
        (picture,) = generate(pipeline_folder, tmp_path / name, "a *", [tmp_path / f"{name}.safetensors"], *ONE)
        made[name] = Image.open(tmp_path / name / picture).tobytes()
    assert made["both"] == made["alone"]
    assert "'both' is used for clip_l only. The model does not use those for clip_g." in capsys.readouterr().err


def test_an_embedding_for_one_of_two_encoders_stands_for_nothing_in_the_other(pipelines, tmp_path, capsys):
    """The second encoder reads the prompt without it: an empty slot."""
    model = pipelines(family="sdxl")
    rows = 0.3 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    save_file({"clip_l": rows}, tmp_path / "half.safetensors")
    (picture,) = generate(model, tmp_path / "out", "a *", [tmp_path / "half.safetensors"], *ONE)
    assert "It has no vectors for the model's clip_g." in capsys.readouterr().err
    host = DiffusersHost.load(model, "cpu")
    request = SampleRequest((("a ", Slot("*")),), (0,), 16, 16, 2, 5.0)
    (expected,) = host.sample(request, {"*": {"clip_l": rows, "clip_g": torch.ones(0, 48)}})
    assert Image.open(tmp_path / "out" / picture).tobytes() == expected.tobytes()
