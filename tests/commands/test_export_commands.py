"""`convert` and `merge`: a word as a file of another layout, and one word of two."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save_file

from ti_train.__main__ import main
from ti_train.editability import recorded
from ti_train.embedding import Embedding
from ti_train.formats import load_embedding, save_embedding


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
    assert re.search(
        r"Rounding to fp16 changes each value by at most \S+, and each vector by at most \S+ of",
        capsys.readouterr().out,
    )
    read = load_embedding(tmp_path / "new.safetensors")
    assert read.vectors["emb_params"].norm(dim=1).tolist() == pytest.approx([1, 1], rel=1e-3)
    assert (read.name, read.provenance["name"]) == ("new", "other")


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
    assert "The vectors for the encoders' output were not written" in capsys.readouterr().out
    assert (
        main(["convert", str(tmp_path / "x.safetensors"), str(tmp_path / "z.safetensors"), "--to", "onetrainer"]) == 0
    )
    assert "not written" not in capsys.readouterr().out


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
        (["convert", "ONE", "OUT.bin"], "has the extension '.bin'; an embedding needs .safetensors, .pt, .png"),
        (["convert", "ONE", "OUT.pt", "--to", "png"], "has the extension '.pt'; png needs .png"),
        (["convert", "ONE", "ONE"], "exists. Choose another name, or use --overwrite"),
        (["convert", "ONE", "OUT/none/x.pt"], "/none' does not exist"),
        (["convert", "ONE", "OUT.pt", "--name", "a(b"], "is part of the syntax of prompts. Use a name such as a-b"),
        (["convert", "none.pt", "OUT.pt"], "The embedding file 'none.pt'"),
        (["convert", "ONE", "OUT.pt", "--word", "dog"], "holds no embedding 'dog'"),
        (["merge", "ONE", "TWO", "OUT.pt", "--how", "sum"], "The embeddings have 1 and 2 vectors"),
        (["merge", "ONE", "OUT.pt"], "Give two or more embeddings"),
    ],
)
def test_converting_and_merging_what_cannot_be(words, tmp_path, the_sentence, arguments, why):
    places = {"ONE": str(words[0]), "TWO": str(words[1]), "OUT": str(tmp_path / "out")}
    assert main([re.sub("ONE|TWO|OUT", lambda match: places[match[0]], a) for a in arguments]) == 1
    assert why in the_sentence()
    assert not list(tmp_path.glob("out*"))


def test_weights_that_are_no_numbers(words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["merge", *map(str, words), str(tmp_path / "out.pt"), "--weights", "half,half"])
    assert "argument --weights: 'half,half' is not a list of numbers such as 1,0.5" in capsys.readouterr().err


def test_editability_needs_the_initial_vectors_in_the_file(words, tmp_path, the_sentence):
    trained = tmp_path / "trained.safetensors"
    ones, initial = torch.ones(1, 4), torch.tensor([[0.0, 2.0, 0.0, 0.0]])
    save_embedding(Embedding("trained", {"emb_params": ones}, recorded({"clip_l": initial})), trained)
    for command, how in ((["convert", trained], []), (["merge", trained, trained], ["--how", "interpolate"])):
        out = tmp_path / f"{command[0]}.safetensors"
        assert main([*map(str, command), str(out), *how, "--editability", "1"]) == 0
        assert torch.allclose(load_embedding(out).vectors["emb_params"], initial, atol=1e-5)
    assert main(["convert", str(words[0]), str(tmp_path / "old.safetensors"), "--editability", "0.2"]) == 1
    assert "does not record its initial vectors" in the_sentence()
