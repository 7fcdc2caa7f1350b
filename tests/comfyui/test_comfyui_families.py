"""Every family with which an embedding can be trained in ComfyUI: a tiny model of it with random weights, see
tiny_families.py."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tiny_families import FAMILIES

from ti_train.hosts.families import BY_CLASS, OLD, Family, class_name

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent
REFUSED = {
    "playground": "The model's sampling",
    "cosmos-predict2": "for Cosmos-Predict2: a noise schedule",
    "longcat": "reads no embeddings",
    "hidream-o1": "for HiDream-O1: it has no text encoder",
}
RESOLUTIONS = {"pixart-alpha": 512, "qwen-image": 1328}
GUIDED = ("flux", "flux-fill", "chroma")  # in which guidance is an input of the network
UNITS = {"Stable_Cascade_C": 32} | dict.fromkeys(  # in pixels; 16 of all others: patches of 2 latents, or Flux.2's VAE
    ("SD15", "SDXL", "SDXLRefiner", "SSD1B", "Segmind_Vega", "KOALA_700M", "KOALA_1B"), 8
)
COMPRESSIONS = {"Flux2": 16, "Stable_Cascade_C": 42}
BOTH_WAYS = ("t5", "roberta")  # encoders in which each token reads all others
UNTRIED = "hunyuan-dit-1.0"  # in no row of the table: it stands for what ComfyUI has and will have besides
TRAINED = [family for family in FAMILIES if family not in (*REFUSED, UNTRIED)]


def row_of(family: str) -> Family:
    tiny = FAMILIES[family]()
    return BY_CLASS[class_name(tiny.model, tiny.unet)]


@pytest.fixture(scope="module")
def look(comfyui, comfyui_python, tmp_path_factory):
    """Asks one process, which knows ComfyUI already: it takes longer to start than most families to look at."""
    folder = tmp_path_factory.mktemp("families")
    command = [comfyui_python, str(HERE / "family_checks.py"), str(folder)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with (
        (folder / "errors.txt").open("w+") as errors,
        subprocess.Popen(command, cwd=comfyui, env=environment, stderr=errors, **pipes) as asked,
    ):

        def look(*families: str) -> dict[str, Any]:
            print(*families, file=asked.stdin)
            answer = next((line for line in asked.stdout if line.startswith("{")), None)
            assert answer, (folder / "errors.txt").read_text()[-4000:]
            found: dict[str, Any] = json.loads(answer)
            assert "error" not in found, found["error"]
            if lacking := found.get("lacking"):
                assert any(OLD not in row_of(family).hosts for family in lacking), lacking
                pytest.skip(f"This ComfyUI is older than {lacking}")
            return found

        yield look
        asked.stdin.close()


@pytest.mark.parametrize("family", TRAINED)
def test_an_embedding_is_trained_and_used(look, family):
    found = look(family)
    assert "refused" not in found, found["refused"]
    row = row_of(family)
    assert set(found["encoders"]) <= set(row.encoders)
    assert found["remarks"] == [] if row.syntax else "reads no embedding:name" in " ".join(found["remarks"])
    tiny = FAMILIES[family]()
    assert found["unit"] == UNITS.get(tiny.model, 16)
    assert found["resolution"] == RESOLUTIONS.get(family, 1024)
    assert (f"multiple of {found['unit']}" in found["odd"]) == (found["unit"] > 8)
    compression = COMPRESSIONS.get(tiny.model, 8)
    assert found["latents"] == [2 * tiny.side // compression, tiny.side // compression]
    assert min(found["norms"].values()) > 0
    assert max(found["finite_differences"].values()) < 0.01, "the gradient is not that of the loss"
    assert found["batch"] < 1e-5, "a batch is not the mean of its images"
    assert found["recomputed"] > 0
    assert found["checkpointed"] < 1e-5, "gradient checkpointing changes the gradient"
    assert found["sliced"] < 1e-4, "sliced attention changes the gradient"
    assert found["start"], "the initial vectors are not what the encoder reads for the initial text"
    for encoder, (far, place) in found["text_states"].items():
        assert far < 1e-3 or not encoder.startswith(("clip_", "t5")), (
            "a slot with a text's rows is not read as the text"
        )
        assert place == 0 or any(kind in encoder for kind in BOTH_WAYS), (
            "the slot is not where its states are said to be"
        )
    assert found["file"], "the file does not hold what was trained"
    assert found["loaded"], "Load Embedding gives another conditioning than training had"
    assert found["typed"] == row.syntax, "embedding:name"
    assert all(0.2 < moved < 2 for moved in found["moved"].values()), "in spreads of each encoder's table"
    assert (found["guided"] > 0) == (family in GUIDED) == found["reads guidance"]
    if found["prediction"] == "flow":
        table, with_node, other, without = found["shifted"]
        assert table, "the noise levels are not those of the node in front"
        assert max(with_node, without) < 1e-5, "a node that shifts the noise levels changes the gradient at a level"
        assert other, "a run with other noise levels counts as the same"
    sampler, scheduler, neither = found["mistyped"]
    assert "preview_sampler is 'eulr'" in sampler
    assert "euler, " in sampler
    assert "preview_scheduler is 'karas'" in scheduler
    assert "karras, " in scheduler
    assert not neither
    assert min(found["last rows"]) > 0.99, "the nearest row is not the row itself"
    assert found["far"] == "" or "does not reach the text encoder" in found["far"]
    assert ("no vectors for the model's" in found["part"]) == (len(found["encoders"]) > 1)
    assert found["differs"], "the embedding does not change the conditioning"
    assert len(found["previews"]) == 2
    assert min(colours for _, _, colours in found["previews"]) > 50, "a preview is empty"
    assert found["untouched"], "a weight is not the object that it was"
    assert all(f"({encoder}):" in found["report"] for encoder in found["encoders"]), "Embedding Info"
    assert found["report"].count("nearest words: ") >= len(found["encoders"])
    assert found["merged"], "Merge Embeddings and Save Embedding"
    assert found["merged encodes"]
    assert found["listed"] == ["merged.safetensors", "word.safetensors"], "the page's list"


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_trained_is_refused_in_words(look, family):
    assert REFUSED[family] in look(family)["refused"]


def test_a_family_that_was_never_tried_is_trained_and_named(look):
    found = look(UNTRIED)
    named, _ = found["remarks"]
    assert "not been tried with this model family (HunyuanDiT1, chinese_roberta + mt5xl)" in named
    assert max(found["finite_differences"].values()) < 0.01
    assert found["file"]
    assert found["loaded"]


def test_a_tokenizer_that_reads_no_embedding_is_found_out(look):
    """LongCat's: Load Embedding says so too, instead of having the model read the placeholder."""
    assert "does not reach the text encoder" in look("longcat")["loading"]


OTHERS = {  # a model, a CLIP of another family -> what is said of both
    ("flux", "sdxl-vpred"): ("clip_l + clip_g", "Flux.1 dev", "clip_l + t5xxl"),
    ("sd3", "sdxl-vpred"): ("is SDXLClipModel with", "Stable Diffusion 3", "needs SD3ClipModel with any of clip_l"),
    ("hidream", "flux"): ("is FluxClipModel with", "HiDream-I1", "needs HiDreamTEModel with any of clip_l"),
    ("sdxl-vpred", "sd3-without-t5"): ("is SD3ClipModel with", "Stable Diffusion XL", "needs clip_l + clip_g"),
    ("sdxl-vpred", "sd1-inpainting"): ("the text encoder(s) clip_l,", "Stable Diffusion XL", "clip_l + clip_g"),
    ("z-image", "flux2-klein"): ("qwen3_4b", "gives 192 values", "Z-Image", "reads 64"),
    ("flux2-klein", "flux2-klein-9b"): ("qwen3_8b", "gives 288 values", "klein", "reads 192"),
}


@pytest.mark.parametrize(("model", "clip"), OTHERS)
def test_another_familys_clip_is_refused_before_anything_is_spent(look, model, clip):
    message = look(model, clip)["refused"]
    assert all(part in message for part in OTHERS[model, clip]), message


VAES = {  # a model, a VAE of another family -> what is said of both
    ("sdxl-vpred", "flux"): ("image latents with 16 channels", "Stable Diffusion XL", "image latents with 4 channels"),
    ("flux", "qwen-image"): ("video latents with 16 channels", "Flux.1 dev", "image latents with 16 channels"),
    ("qwen-image", "flux"): ("image latents with 16 channels", "Qwen-Image", "video latents with 16 channels"),
}


@pytest.mark.parametrize(("model", "vae"), VAES)
def test_another_familys_vae_is_refused_at_the_first_image(look, model, vae):
    message = look(model, model, vae)["refused"]
    assert all(part in message for part in VAES[model, vae]), message
