"""`inspect`: what a file holds, for people and as JSON."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ti_train.__main__ import main


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


def test_inspecting_garbage(tmp_path, the_sentence):
    (tmp_path / "cat.safetensors").write_bytes(b"gar\x01bage\x02")
    assert main(["inspect", str(tmp_path / "cat.safetensors")]) == 1
    assert "is not a readable embedding, or it is damaged" in the_sentence()


def test_inspecting_two_encoders_compares_each_with_its_own(pipelines, tmp_path, capsys):
    from ti_train.hosts.diffusers.host import DiffusersHost

    folder = pipelines(family="sdxl")
    host = DiffusersHost.load(folder, "cpu", "float32")
    save_file({e: host.vocabulary(e).rows("cat").contiguous() for e in host.widths}, tmp_path / "cat.safetensors")
    assert main(["inspect", str(tmp_path / "cat.safetensors"), "--model", str(folder), "--json"]) == 0
    encoders = json.loads(capsys.readouterr().out)["encoders"]
    assert list(encoders) == ["clip_l", "clip_g"]
    assert [encoder["dim"] for encoder in encoders.values()] == list(host.widths.values())
    for encoder in encoders.values():
        assert encoder["nearest words"][0][0] == ["cat", 1.0]


def test_inspecting_a_file_of_several_words_asks_which(tmp_path, capsys, the_sentence):
    bundle = {"bundle_emb.cat.clip_l": torch.ones(1, 8), "bundle_emb.dog.clip_l": torch.ones(2, 8)}
    save_file(bundle, tmp_path / "lora.safetensors")
    assert main(["inspect", str(tmp_path / "lora.safetensors")]) == 1
    assert "'cat' (1 vector(s) of 8); 'dog' (2 vector(s) of 8). Choose one" in the_sentence()
    assert main(["inspect", str(tmp_path / "lora.safetensors"), "--word", "dog", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoders"]["clip_l"]["vectors"] == 2


def test_what_a_header_says_does_not_act_on_the_terminal(tmp_path, capsys):
    save_file({"emb_params": torch.ones(1, 4)}, tmp_path / "cat.safetensors", {"init": "\x1b]0;owned\x07\u202e"})
    assert main(["inspect", str(tmp_path / "cat.safetensors")]) == 0
    said = capsys.readouterr().out
    assert r"init: \x1b]0;owned\x07\u202e" in said
    assert said.replace("\n", "").isprintable()


def test_the_names_of_what_is_in_a_file_do_not_act_on_the_terminal(tmp_path, the_sentence):
    save_file({"\x1b[2Ja": torch.ones(1, 4), "\u202eb": torch.ones(1, 4)}, tmp_path / "cat.safetensors")
    assert main(["inspect", str(tmp_path / "cat.safetensors")]) == 1
    assert r"\x1b[2Ja" in (said := the_sentence())
    assert said.isprintable()


@pytest.mark.parametrize("header", [{"step": "9" * 5000}, {"step": "x"}, {"config": "[" * 100_000}, {"config": "7"}])
def test_a_header_with_other_things_than_numbers_and_settings(header, tmp_path, capsys):
    save_file({"emb_params": torch.ones(1, 4)}, tmp_path / "cat.safetensors", header)
    assert main(["inspect", str(tmp_path / "cat.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] is None
