"""Every family with which an embedding can be trained in ComfyUI: a tiny model of it with random weights, see
tiny_families.py. Each takes a quarter of a minute, most of it to start."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tiny_families import FAMILIES

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent
REFUSED = {
    "playground": "The model's sampling",
    "longcat": "does not reach the text encoder",
}
WITHOUT_SYNTAX = (
    "auraflow",
    "lumina2",
    "omnigen2",
    "qwen-image",
    "hunyuan-dit",
)  # ComfyUI reads no embedding:name there
ENCODERS = {
    "sdxl-vpred": ["clip_l", "clip_g"],
    "sdxl-inpainting": ["clip_l", "clip_g"],
    "sdxl-refiner": ["clip_g"],
    "sd3": ["clip_l", "clip_g", "t5xxl"],
    "sd3-without-t5": ["clip_l", "clip_g"],
    "flux": ["clip_l", "t5xxl"],
    "flux-schnell": ["clip_l", "t5xxl"],
    "stable-cascade": ["clip_g"],
    "chroma": ["t5xxl"],
    "pixart-sigma": ["t5xxl"],
    "auraflow": ["pile_t5xl"],
    "z-image": ["qwen3_4b"],
    "flux2-klein": ["qwen3_4b"],
    "lumina2": ["gemma2_2b"],
    "omnigen2": ["qwen25_3b"],
    "hidream": ["clip_l", "clip_g", "t5xxl", "llama"],
    "qwen-image": ["qwen25_7b"],
    "krea2": ["qwen3vl_4b"],
    "anima": ["qwen3_06b"],
    "hunyuan-dit": ["chinese_roberta", "mt5xl"],
}


@pytest.fixture
def look(comfyui, comfyui_python, tmp_path):
    def look(family: str) -> dict:
        command = [comfyui_python, str(HERE / "family_checks.py"), family, str(tmp_path)]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=comfyui, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return look


def test_the_table_is_complete():
    assert set(FAMILIES) == {*ENCODERS, *REFUSED}


@pytest.mark.parametrize("family", ENCODERS)
def test_an_embedding_is_trained_and_used(look, family):
    found = look(family)
    assert list(found["encoders"]) == ENCODERS[family]
    assert min(found["norms"].values()) > 0
    assert max(found["finite_differences"].values()) < 0.01, "the gradient is not that of the loss"
    assert found["batch"] < 1e-5, "a batch is not the mean of its images"
    assert found["recomputed"] > 0
    assert found["checkpointed"] < 1e-5, "gradient checkpointing changes the gradient"
    assert found["start"], "the initial vectors are not what the encoder reads for the initial text"
    assert found["file"], "the file does not hold what was trained"
    assert found["loaded"], "Load Embedding gives another conditioning than training had"
    assert found["typed"] == (family not in WITHOUT_SYNTAX), "embedding:name"
    assert found["differs"], "the embedding does not change the conditioning"
    assert len(found["previews"]) == 2
    assert min(colours for _, _, colours in found["previews"]) > 50, "a preview is empty"
    assert found["untouched"], "a weight is not the object that it was"


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_trained_is_refused_in_words(look, family):
    assert REFUSED[family] in look(family)["refused"]
