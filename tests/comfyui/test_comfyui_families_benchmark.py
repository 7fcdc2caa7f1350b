"""`benchmarks/families.py`, the README's command for whoever has a family's weights: here with drawn ones."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from safetensors import safe_open

pytestmark = pytest.mark.slow
COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "families.py"


@pytest.fixture(scope="module")
def left(comfyui, comfyui_python, drawn, pictures, tmp_path_factory) -> Path:
    """What the command leaves."""
    folder = tmp_path_factory.mktemp("families-benchmark")
    (folder / "models" / "checkpoints").mkdir(parents=True)
    (folder / "models" / "checkpoints" / "sd1.safetensors").symlink_to(drawn / "sd1.safetensors")
    command = [
        comfyui_python, str(COMMAND), "--comfyui", str(comfyui), "--checkpoint", "sd1.safetensors", "--images",
        str(pictures), "--initial-text", "toy", "--out", str(folder / "out"), "--steps", "4", "--resolution",
        "64", "--prompts", "a photo of a *", "--base-directory", str(folder), "--cpu",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (0, 1), done.stderr[-4000:]  # 1: of so few steps the validation loss need not fall
    assert f"See {folder / 'out' / 'families.png'}." in done.stdout
    return folder / "out"


def test_it_leaves_figures_and_images_with_and_without_the_embedding(left):
    figures = json.loads((left / "families.json").read_text(encoding="utf-8"))
    assert figures["steps"] == 4
    assert figures["moved, in spreads of the encoder's table"]["clip_l"] > 0
    assert figures["largest difference of a pixel"] > 0
    assert len(figures["nearest words"]["clip_l"]) > 1
    assert (left / "families.png").stat().st_size > 10_000


def test_it_leaves_the_embedding(left):
    with safe_open(left / "families.safetensors", "pt") as file:
        assert file.get_tensor("emb_params").shape == (1, 768)
