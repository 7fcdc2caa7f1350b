"""What is written: the keys that each tool looks for, the same bits again, and what a layout has no place for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ti_train.embedding import SINGLE, Embedding
from ti_train.errors import UserError
from ti_train.formats import (
    ENDINGS,
    PRECISIONS,
    Layout,
    Precision,
    files_of,
    layout_for,
    read_embedding,
    rounding_error,
    write_embedding,
)

ONE = Embedding("my-cat", {SINGLE: torch.randn(2, 768)}, {"step": "7", "sd_checkpoint_name": "model-a", "init": "cat"})
TWO = Embedding("my-cat", {"clip_l": torch.randn(2, 768), "clip_g": torch.randn(2, 1280)}, {"step": "7"})


@settings(max_examples=60)
@given(
    layout=st.sampled_from(list(ENDINGS)),
    count=st.integers(1, 4),
    width=st.one_of(st.integers(1, 40), st.just(None)),
    precision=st.sampled_from(list(PRECISIONS)),
    seed=st.integers(0, 2**16),
)
def test_what_is_written_is_read_again(layout, count, width, precision, seed):
    """width None: Stable Diffusion XL's two encoders."""
    generator = torch.Generator().manual_seed(seed)
    widths = {"clip_l": 768, "clip_g": 1280} if width is None else {SINGLE: width}
    word = Embedding("cat", {e: torch.randn(count, w, generator=generator) for e, w in widths.items()}, {"step": "3"})
    dtype = PRECISIONS[precision]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"cat{ENDINGS[layout]}")
        paths = write_embedding(word, path, layout, dtype)
        assert sorted(Path(folder).iterdir()) == sorted(paths) == sorted(files_of(word, path, layout))
        read = read_embedding(*paths)
    assert set(read.embedding.vectors) == set(widths)
    assert all(torch.equal(read.embedding.vectors[e], v.to(dtype).float()) for e, v in word.vectors.items())
    assert set(read.dtypes.values()) == {torch.float32 if layout == "png" else dtype}
    kept = {"step": "3"} if (layout, width) != ("a1111", None) else {}  # A1111 takes nothing beside two encoders
    assert kept.items() <= read.embedding.provenance.items()


@pytest.mark.parametrize(
    ("layout", "word", "keys"),
    [
        ("safetensors", ONE, {"emb_params"}),
        ("safetensors", TWO, {"clip_l", "clip_g"}),
        ("onetrainer", ONE, {"emp_params"}),
        ("onetrainer", TWO, {"clip_l", "clip_g"}),
        ("diffusers", ONE, {"<my-cat>"}),
        ("diffusers", TWO, {"<my-cat>"}),
        ("onetrainer", Embedding("x", {"clip_l": torch.ones(1, 8), "t5xxl": torch.ones(1, 8)}), {"clip_l", "t5"}),
        ("onetrainer", Embedding("x", {"t5xxl": torch.ones(1, 8)}), {"t5"}),
        ("safetensors", Embedding("x", {"qwen3_4b": torch.ones(1, 8)}), {"qwen3_4b"}),
        ("safetensors", Embedding("x", {"clip_h": torch.ones(1, 8)}), {SINGLE}),
        ("onetrainer", Embedding("x", {"gemma2_2b": torch.ones(1, 8)}), {"gemma"}),
        ("onetrainer", Embedding("x", {"clip_h": torch.ones(1, 8)}), {"emp_params"}),
        ("safetensors", Embedding("x", {"clip_l": torch.ones(1, 8), "t5xxl": torch.ones(1, 8)}), {"clip_l", "t5xxl"}),
    ],
)
def test_the_keys_of_a_safetensors_file_are_those_that_its_tool_wants(tmp_path, layout, word, keys):
    for path in write_embedding(word, tmp_path / "x.safetensors", layout):
        assert set(load_file(path)) == keys


def test_an_a1111_file_has_what_a1111_writes(tmp_path):
    write_embedding(ONE, tmp_path / "x.pt", "a1111")
    data = torch.load(tmp_path / "x.pt", weights_only=True)
    assert data["string_to_token"] == {"*": 265}
    assert torch.equal(data["string_to_param"]["*"], ONE.vectors[SINGLE])
    assert (data["name"], data["step"], data["sd_checkpoint"], data["sd_checkpoint_name"]) == (
        "my-cat",
        7,
        None,
        "model-a",
    )
    write_embedding(TWO, tmp_path / "x.pt", "a1111")
    assert list(torch.load(tmp_path / "x.pt", weights_only=True)) == ["clip_l", "clip_g"]


def test_the_provenance_goes_along_where_the_layout_has_room(tmp_path):
    for layout, ending in ENDINGS.items():
        write_embedding(ONE, tmp_path / f"x{ending}", layout)
        there = read_embedding(tmp_path / f"x{ending}").embedding.provenance
        ours = {key: value for key, value in there.items() if not key.startswith("modelspec.")}
        assert ours == ONE.provenance | {"name": "my-cat"}


def test_onetrainers_output_vectors_are_kept_in_its_own_layout(tmp_path):
    outputs = {SINGLE: torch.ones(2, 768)}
    write_embedding(ONE, tmp_path / "x.safetensors", "onetrainer", outputs=outputs)
    assert set(load_file(tmp_path / "x.safetensors")) == {"emp_params", "emp_params_out"}
    assert torch.equal(read_embedding(tmp_path / "x.safetensors").outputs[SINGLE], outputs[SINGLE])
    write_embedding(ONE, tmp_path / "x.safetensors", outputs=outputs)
    assert set(load_file(tmp_path / "x.safetensors")) == {"emb_params"}


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_what_rounding_costs_is_measured(precision):
    word = Embedding("x", {SINGLE: torch.tensor([[1 / 3, 2.0]])})
    rounded = word.vectors[SINGLE].numpy().astype("float16") if precision == "fp16" else None
    largest, relative = rounding_error(word, PRECISIONS[precision])
    if precision == "fp16":
        error = abs(float(rounded[0, 0]) - word.vectors[SINGLE][0, 0].item())
        assert largest == pytest.approx(error, rel=1e-5)
        assert relative == pytest.approx(error / (1 / 9 + 4) ** 0.5, rel=1e-3)
    else:
        assert (largest == 0) == (precision == "fp32")


def test_a_value_beyond_fp16_is_refused(tmp_path):
    word = Embedding("x", {SINGLE: torch.tensor([[1.0, 1e6]])})
    with pytest.raises(UserError, match=r"Values of up to 1e\+06 overflow float16. Use bf16 or fp32"):
        write_embedding(word, tmp_path / "x.pt", "a1111", torch.float16)
    assert list(tmp_path.iterdir()) == []


FLUX = Embedding("x", {"clip_l": torch.ones(1, 8), "t5xxl": torch.ones(1, 8)})


@pytest.mark.parametrize(
    ("word", "layout", "why"),
    [
        (
            FLUX,
            "a1111",
            r"vectors for clip_l \+ t5xxl. The layout 'a1111' supports one text encoder, or clip_l \+ clip_g",
        ),
        (FLUX, "png", "The layout 'png' supports one text encoder"),
        (FLUX, "diffusers", "The layout 'diffusers' supports one text encoder"),
        (
            Embedding("x", {"byt5_small": torch.ones(1, 8)}),
            "onetrainer",
            "has no embeddings for the text encoder byt5_small",
        ),
        (ONE, "ckpt", "Unknown layout 'ckpt'. Choose one of safetensors, a1111"),
    ],
)
def test_what_a_layout_has_no_place_for_is_refused(tmp_path, word, layout, why):
    with pytest.raises(UserError, match=why):
        write_embedding(word, tmp_path / "x", layout)
    assert list(tmp_path.iterdir()) == []


def test_the_ending_says_the_layout():
    wanted = {"a.safetensors": "safetensors", "a.PT": "a1111", "a.png": "png"}
    assert {name: layout_for(Path(name)) for name in wanted} == wanted
    assert layout_for(Path("a.safetensors"), "diffusers") == "diffusers"
    with pytest.raises(
        UserError, match=r"'a.bin' has the extension '.bin'; an embedding needs .safetensors, .pt, .png"
    ):
        layout_for(Path("a.bin"))
    with pytest.raises(UserError, match=r"'a.safetensors' has the extension '.safetensors'; a1111 needs .pt"):
        layout_for(Path("a.safetensors"), "a1111")


def test_every_layout_and_precision_has_its_type():
    """The WebUI's API takes its choices from the types."""
    assert get_args(Layout) == tuple(ENDINGS)
    assert get_args(Precision) == tuple(PRECISIONS)
    assert list(PRECISIONS.values()) == [torch.float32, torch.float16, torch.bfloat16]


def test_animas_file_has_no_vectors_for_t5_in_a_form_that_comfyui_reads(tmp_path):
    """ComfyUI takes the first tensor of a file without the key `t5xxl`, and then fails."""
    word = Embedding("my-cat", {"qwen3_06b": torch.randn(2, 1024)})
    (path,) = write_embedding(word, tmp_path / "my-cat.safetensors")
    assert {key: tuple(t.shape) for key, t in load_file(path).items()} == {"qwen3_06b": (2, 1024), "t5xxl": (0, 4096)}
    read = read_embedding(path).embedding.vectors
    assert set(read) == {"qwen3_06b"}
    assert torch.equal(read["qwen3_06b"], word.vectors["qwen3_06b"])
