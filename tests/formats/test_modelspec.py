"""ModelSpec's header keys, and the picture of an embedding."""

from __future__ import annotations

import base64
import hashlib
import io

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ti_train.embedding import SINGLE, Embedding
from ti_train.formats import load_embedding, name_inside, put_preview, save_embedding


def saved(folder, widths=None, name="cat"):
    vectors = {encoder: torch.randn(2, width) for encoder, width in (widths or {SINGLE: 768}).items()}
    save_embedding(Embedding(name, vectors), folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def header(file) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


@pytest.mark.parametrize(
    ("widths", "architecture"),
    [
        ({SINGLE: 768}, "stable-diffusion-v1/textual-inversion"),
        ({"clip_h": 1024}, "stable-diffusion-v2/textual-inversion"),
        ({"clip_l": 768, "clip_g": 1280}, "stable-diffusion-xl-v1-base/textual-inversion"),
    ],
)
def test_a_file_says_what_it_is_and_how_it_is_used(tmp_path, widths, architecture):
    file = saved(tmp_path, widths)
    said = {key.removeprefix("modelspec."): v for key, v in header(file).items() if key.startswith("modelspec.")}
    assert said["architecture"] == architecture
    assert (said["title"], said["trigger_phrase"]) == ("cat", "cat")
    assert "embedding:cat" in said["usage_hint"]
    assert {"sai_model_spec", "implementation", "date"} <= said.keys()
    data = file.read_bytes()
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    assert said["hash_sha256"] == "0x" + hashlib.sha256(tensors).hexdigest()


@pytest.mark.parametrize(
    ("encoders", "usage"),
    [
        ({"t5xxl": 4096}, "In ComfyUI: embedding:cat"),
        ({"clip_l": 768, "t5xxl": 4096}, "In ComfyUI: embedding:cat"),
        ({"qwen25_7b": 3584}, "In ComfyUI: Load Embedding with cat"),
        ({"gemma2_2b": 2304}, "In ComfyUI: Load Embedding with cat"),
    ],
)
def test_without_a_known_model_a_file_still_says_how_it_is_used(tmp_path, encoders, usage):
    said = header(saved(tmp_path, encoders))
    assert (said["modelspec.title"], said["modelspec.usage_hint"]) == ("cat", usage)
    assert not {"modelspec.architecture", "modelspec.sai_model_spec", "modelspec.implementation"} & said.keys()


def test_the_model_that_an_embedding_was_trained_for_is_kept(tmp_path):
    """Two encoders of Stable Diffusion 3 have the widths of XL's."""
    vectors = {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}
    for kind in ("textual-inversion", "lora"):
        made = Embedding("cat", vectors, {"modelspec.architecture": f"stable-diffusion-3/{kind}"})
        save_embedding(made, tmp_path / "cat.safetensors")
        said = header(tmp_path / "cat.safetensors")
        assert said["modelspec.architecture"] == "stable-diffusion-3/textual-inversion"
        assert said["modelspec.implementation"].endswith("/ComfyUI")


def test_a_renamed_file_says_how_it_is_used_by_its_new_name(tmp_path):
    file = saved(tmp_path, {"qwen25_7b": 3584})
    name_inside(file.rename(tmp_path / "dog.safetensors"), "dog")
    assert header(tmp_path / "dog.safetensors")["modelspec.usage_hint"] == "In ComfyUI: Load Embedding with dog"


def test_a_copy_keeps_the_date_and_has_its_own_name(tmp_path):
    one = load_embedding(saved(tmp_path))
    one.provenance["modelspec.date"] = "2020-01-01"
    save_embedding(Embedding("dog", one.vectors, one.provenance), tmp_path / "dog.safetensors")
    said = header(tmp_path / "dog.safetensors")
    assert (said["modelspec.title"], said["modelspec.date"]) == ("dog", "2020-01-01")


def test_a_picture_beside_the_file_and_in_its_header(tmp_path):
    file = saved(tmp_path)
    before = load_file(file)
    put_preview(file, Image.effect_noise((1024, 768), 90))
    assert all(torch.equal(v, before[key]) for key, v in load_file(file).items())
    kind, _, data = header(file)["modelspec.thumbnail"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert len(data) < 100_000
    assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) == 256
    assert Image.open(tmp_path / "cat.preview.png").size == (512, 384)


def test_the_picture_of_an_earlier_training_is_replaced(tmp_path):
    file = saved(tmp_path)
    for colour in ("red", "blue"):
        put_preview(file, Image.new("RGB", (64, 64), colour))
    assert Image.open(tmp_path / "cat.preview.png").getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("picture", ["cat.png", "cat.preview.png", "cat.jpg", "cat.preview.webp"])
def test_a_picture_that_the_user_put_there_stays(tmp_path, picture):
    file = saved(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / picture)
    before = (tmp_path / picture).read_bytes()
    put_preview(file, Image.new("RGB", (64, 64), "red"))
    assert (tmp_path / picture).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["cat.safetensors", picture])
