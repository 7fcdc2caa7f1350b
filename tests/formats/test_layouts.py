"""What the keys of a file mean: every layout by the tool that writes it, and what can be read in two ways."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from sample_files import parameter_dict, samples

from ti_train.errors import UserError
from ti_train.formats import load_embedding, read_embedding, read_embeddings

SAMPLES = samples()


@pytest.mark.parametrize("name", SAMPLES)
def test_every_layout_is_read_and_named(tmp_path, name):
    sample = SAMPLES[name]
    path = tmp_path / f"word.{sample.ending}"
    path.write_bytes(sample.data)
    read = read_embedding(path)
    assert sample.layout in read.layout
    for encoder, vectors in sample.vectors.items():
        assert read.embedding.vectors[encoder].dtype == torch.float32
        assert torch.equal(read.embedding.vectors[encoder], vectors)
    assert read.embedding.name == (sample.name or "word")
    assert read.embedding.provenance == sample.provenance


def test_the_type_of_the_values_in_the_file_is_told(tmp_path):
    save_file(
        {"clip_l": torch.ones(1, 768).half(), "clip_g": torch.ones(1, 1280).bfloat16()}, tmp_path / "x.safetensors"
    )
    assert read_embedding(tmp_path / "x.safetensors").dtypes == {"clip_l": torch.float16, "clip_g": torch.bfloat16}


def test_onetrainers_names_of_encoders_become_comfyuis(tmp_path):
    tensors = {"clip_l": torch.ones(1, 768), "t5": torch.ones(1, 4096), "gemma": torch.ones(1, 2304)}
    save_file(tensors, tmp_path / "x.safetensors")
    assert set(load_embedding(tmp_path / "x.safetensors").vectors) == {"clip_l", "t5xxl", "gemma2_2b"}


def test_onetrainers_output_vectors_are_kept_apart(tmp_path):
    save_file({"clip_l": torch.zeros(1, 8), "clip_l_out": torch.ones(1, 8)}, tmp_path / "x.safetensors")
    read = read_embedding(tmp_path / "x.safetensors")
    assert list(read.embedding.vectors) == ["clip_l"]
    assert torch.equal(read.outputs["clip_l"], torch.ones(1, 8))


def test_the_two_files_of_diffusers_make_one_word_in_either_order(tmp_path):
    one, two = tmp_path / "learned_embeds.safetensors", tmp_path / "learned_embeds_2.safetensors"
    save_file({"<cat>": torch.ones(2, 768)}, one)
    save_file({"<cat>": torch.ones(2, 1280)}, two)
    for first, second in ((one, two), (two, one)):
        read = read_embedding(first, second)
        assert {e: v.shape[1] for e, v in read.embedding.vectors.items()} == {"clip_l": 768, "clip_g": 1280}
        assert read.layout.startswith("two files: ")


@pytest.mark.parametrize(("count", "width"), [(2, 768), (1, 1280)])
def test_two_files_that_are_no_pair_are_refused(tmp_path, count, width):
    save_file({"<cat>": torch.ones(2, 768)}, tmp_path / "1.safetensors")
    save_file({"<cat>": torch.ones(count, width)}, tmp_path / "2.safetensors")
    with pytest.raises(UserError, match=r"Together they make a word only as the two files of Stable Diffusion XL"):
        read_embedding(tmp_path / "1.safetensors", tmp_path / "2.safetensors")


def test_of_a_lora_only_the_words_are_read(tmp_path):
    weights = {f"lora_unet_{i}.lora_down.weight": torch.zeros(32, 1024) for i in range(200)}
    weights["lora_unet_0.alpha"] = torch.tensor(float("nan"))
    save_file(weights | {"bundle_emb.cat.clip_l": torch.ones(1, 768)}, tmp_path / "lora.safetensors")
    (read,) = read_embeddings(tmp_path / "lora.safetensors")
    assert (read.embedding.name, list(read.embedding.vectors)) == ("cat", ["clip_l"])
    save_file(weights, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match=r"holds 201 tensors \(lora_unet_0.alpha, .* Is it a model"):
        read_embeddings(tmp_path / "lora.safetensors")


def two_placeholders(path):
    torch.save({"string_to_param": parameter_dict(star=torch.ones(1, 8), at=torch.zeros(1, 8))}, path)


def a_bundle_of_two(path):
    save_file({"bundle_emb.a.clip_l": torch.ones(1, 8), "bundle_emb.b.c.string_to_param.*": torch.ones(1, 8)}, path)


def two_tensors(path):
    save_file({"<a>": torch.ones(1, 8), "<b>": torch.ones(1, 9)}, path)


def encoder_and_stranger(path):
    save_file({"clip_l": torch.ones(1, 8), "emb_params": torch.ones(1, 8)}, path)


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (two_placeholders, ["*", "@"]),
        (a_bundle_of_two, ["a", "b.c"]),
        (two_tensors, ["<a>", "<b>"]),
        (encoder_and_stranger, ["emb_params", "clip_l"]),
    ],
)
def test_what_can_be_read_in_several_ways_is_an_error_that_lists_them(tmp_path, write, names):
    path = tmp_path / "word.safetensors"
    write(path)
    assert [r.embedding.name for r in read_embeddings(path)] == names
    listed = "; ".join(rf"'{name}' \(1 vector\(s\) of [89]\)" for name in names).replace("*", r"\*")
    with pytest.raises(UserError, match=rf"holds 2 embeddings, .* It can be read as: {listed}"):
        read_embedding(path)
    for name in names:
        assert read_embedding(path, word=name).embedding.name == name
    with pytest.raises(UserError, match="holds no embedding 'other'"):
        read_embedding(path, word="other")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"t5": torch.ones(1, 8), "t5xxl": torch.ones(1, 8)}, r"vectors for the encoder 't5xxl' twice \(t5 \+ t5xxl\)"),
        ({"clip_l_out": torch.ones(1, 8)}, r"for the output of a text encoder \(clip_l_out\)"),
        ([{"a": torch.ones(1, 7)}, {"b": torch.ones(1, 8)}], "tensors of width 7, 8 without the names"),
        ([1, 2], "holds no tensor"),
        ({"step": 3}, "holds no tensor"),
        ("text", "holds a str, not an embedding"),
        ({"string_to_param": 3}, "holds no vectors under 'string_to_param'"),
        ({"string_to_param": {}}, "holds no tensor"),
        (
            {"optimizer_state_dict": {}},
            r"the state of A1111's optimizer; the embedding is in the file without '.optim'",
        ),
        ({f"IN{i:02}": torch.ones(1, 8) for i in (1, 2, 4)}, "an XTI embedding"),
    ],
)
def test_what_is_no_word_is_told_in_one_sentence(tmp_path, content, why):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=f"^'x.pt' .*{why}"):
        load_embedding(tmp_path / "x.pt")
