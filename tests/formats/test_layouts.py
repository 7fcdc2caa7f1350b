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


def test_clip_l_under_the_name_of_clip_g_is_known_by_its_width(tmp_path):
    """OneTrainer's first embeddings for Flux; CLIP-G's vectors have 1280 numbers in every model."""
    save_file({"clip_g": torch.ones(1, 768), "t5": torch.ones(1, 4096)}, tmp_path / "x.safetensors")
    assert set(load_embedding(tmp_path / "x.safetensors").vectors) == {"clip_l", "t5xxl"}


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
    with pytest.raises(UserError, match="They are one embedding only if they are the two files"):
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


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(
    "beside",
    [
        {"step": torch.tensor(500)},
        {"scale": torch.tensor(float("nan"))},
        {"token_ids": torch.arange(2)},
        {"mask": torch.ones(1, 8, dtype=torch.bool)},
        {"conv.weight": torch.ones(1, 2, 3, 3)},
        {f"scale.{i}": torch.tensor(1.0) for i in range(200)},
        {f"conv.{i}": torch.ones(1, 2, 3, 3) for i in range(200)},
    ],
    ids=["scalar", "NaN", "integers", "booleans", "4-D", "200 scalars", "200 4-D"],
)
@pytest.mark.parametrize("key", ["emb_params", "clip_l", "<cat>", "cat"])
def test_what_is_beside_the_vectors_is_left_alone(tmp_path, suffix, beside, key):
    path, vectors = tmp_path / f"word.{suffix}", torch.ones(2, 8)
    (save_file if suffix == "safetensors" else torch.save)({key: vectors} | beside, path)
    for read in (read_embedding(path), read_embedding(path, word=key)):
        assert torch.equal(next(iter(read.embedding.vectors.values())), vectors)


@pytest.mark.parametrize("word", ["<s1>", "up.7"])
def test_one_of_many_is_read_by_its_name(tmp_path, word):
    """A LoRA of cloneofsimo's trainer; broken weights in it are not the embedding's."""
    lora = {
        f"{part}.{i}": torch.full((4, 8), float("nan") if i == 3 else float(i))
        for i in range(64)
        for part in ("up", "down")
    }
    save_file(lora | {"<s1>": torch.ones(8), "<s2>": torch.ones(8)}, tmp_path / "lora.safetensors")
    assert read_embedding(tmp_path / "lora.safetensors", word=word).embedding.name == word


def test_a_lora_that_marks_its_embeddings_in_its_header(tmp_path):
    lora = {f"unet:{i}:up": torch.ones(4, 8) for i in range(9)}
    marked = {"<s1>": "<embed>", "<s2>": "<embed>", "unet": "[]"}
    save_file(lora | {"<s1>": torch.ones(8), "<s2>": torch.ones(8)}, tmp_path / "lora.safetensors", marked)
    assert [read.embedding.name for read in read_embeddings(tmp_path / "lora.safetensors")] == ["<s1>", "<s2>"]


@pytest.mark.parametrize(
    "keys", [("text_encoders_0", "text_encoders_1"), ("CLIP_L", "CLIP_G")], ids=["numbered", "capitals"]
)
def test_other_spellings_of_the_encoders(tmp_path, keys):
    save_file(dict(zip(keys, (torch.ones(2, 768), torch.ones(2, 1280)), strict=True)), tmp_path / "x.safetensors")
    read = read_embedding(tmp_path / "x.safetensors")
    assert {encoder: v.shape[1] for encoder, v in read.embedding.vectors.items()} == {"clip_l": 768, "clip_g": 1280}


@pytest.mark.parametrize(("key", "shape"), [("emb_params", (1, 2, 8)), ("clip_l", (0, 8))])
def test_the_error_is_about_the_vectors_not_about_what_is_beside_them(tmp_path, key, shape):
    save_file({"a": torch.tensor(1.0), key: torch.ones(shape), "z": torch.tensor(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=f"^'x.safetensors' holds '{key}' of shape"):
        read_embedding(tmp_path / "x.safetensors")


def test_a_renamed_file_is_told_by_its_files_name_as_in_the_hosts(tmp_path):
    a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(1, 8)}, "name": "before"}
    torch.save(a1111, tmp_path / "after.pt")
    save_file({"emb_params": torch.ones(1, 8)}, tmp_path / "after.safetensors", {"name": "before"})
    for suffix in ("pt", "safetensors"):
        assert load_embedding(tmp_path / f"after.{suffix}").name == "after"


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
