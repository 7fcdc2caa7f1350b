"""GGUF files, loaded by the custom node ComfyUI-GGUF (gguf_files.py).

They need that node (COMFYUI_GGUF_PATH, or a folder in ComfyUI's custom_nodes) and its package gguf.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent
COSINES = {"Q8_0": 0.99, "Q5_1": 0.95, "Q4_0": 0.7, "Q4_K": 0.7}


@pytest.fixture(scope="module")
def found(comfyui, comfyui_python, tmp_path_factory):
    node = Path(os.environ.get("COMFYUI_GGUF_PATH", comfyui / "custom_nodes" / "ComfyUI-GGUF"))
    if not (node / "loader.py").is_file():
        pytest.skip("There is no ComfyUI-GGUF: set COMFYUI_GGUF_PATH to its folder")
    if subprocess.run([comfyui_python, "-c", "import gguf"], check=False, capture_output=True).returncode:
        pytest.skip("ComfyUI's Python has no package gguf")
    folder = tmp_path_factory.mktemp("gguf")
    command = [comfyui_python, str(HERE / "gguf_files.py"), str(node.resolve()), str(folder), *COSINES]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=comfyui, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", COSINES)
def test_an_embedding_trains_on_gguf_files(found, kind):
    case = found[kind]
    assert "torch.uint8" in case["stored"]
    # the custom node makes a weight in fp16
    assert case["rounded"] < 0.01, "the gradient is not that of the weights which the file holds"
    assert min(case["cosine to rounded"].values()) > 0.9999
    assert min(case["cosine"].values()) > COSINES[kind], "to the weights before rounding"
    assert case["checkpointed"] < 1e-5
    assert case["file"]
    assert len(case["previews"]) == 2
    assert min(colours for _, _, colours in case["previews"]) > 50, "a preview is empty"
    assert case["untouched"]
    assert all("cat" in word for word in case["nearest"].values())
