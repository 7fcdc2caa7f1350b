"""A concept of the world, learnt and sampled in a running ComfyUI through stock nodes, and judged.

TI_TRAIN_WORLD_SOURCE: the folder of the world's concepts.py and judge.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import workflows as w
from PIL import Image

pytestmark = pytest.mark.slow
CONCEPT, COUNT = "coral-ring", 8


@pytest.fixture(scope="module")
def source() -> Path:
    path = os.environ.get("TI_TRAIN_WORLD_SOURCE")
    if not path:
        pytest.skip("TI_TRAIN_WORLD_SOURCE is not set: give the folder of the world's concepts.py and judge.py")
    return Path(path).resolve()


@pytest.fixture(scope="module")
def concept(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("concepts")
    subprocess.run([sys.executable, "-B", "concepts.py", str(folder)], cwd=source, check=True)
    return folder / CONCEPT


def fidelity(source: Path, pictures: list[Path], truth: dict) -> float:
    """The mean of the judge's scores, 0 to 1."""
    sys.path.insert(0, str(source))
    sys.dont_write_bytecode = True
    try:
        import judge
    finally:
        sys.path.remove(str(source))
    reports = judge.judge([Image.open(p) for p in pictures], judge.load())
    return sum(judge.fidelity(report, truth) for report in reports) / len(reports)


def test_a_concept_is_learnt(server, world, source, concept):
    shutil.copytree(concept, server.base / "input" / CONCEPT)
    truth = json.loads((concept / "concept.json").read_text())
    vae = {"vae": w.node("VAELoader", vae_name="taesd")}
    settings = {"name": "ring-of-coral", "initial_text": truth["init_word"], "steps": 0, "vae": ["vae", 0]}
    training = w.training("world.safetensors", CONCEPT, **settings) | vae
    training["options"] = w.options(batch_size=4, checkpoint_every=100)
    look = {"vae": ["vae", 0], "steps": 25, "count": COUNT}
    learnt = server.run(training | w.sampling("a photo of a *", ["train", 1], "learnt", **look))
    stock = {"model": training["model"]} | vae
    plain = server.run(stock | w.sampling(f"a photo of a {truth['init_word']}", ["model", 1], "plain", **look))
    with_word = fidelity(source, server.files(learnt, "save"), truth)
    without = fidelity(source, server.files(plain, "save"), truth)
    assert with_word > 0.9
    assert without < 0.7
