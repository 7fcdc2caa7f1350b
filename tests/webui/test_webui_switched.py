"""Another checkpoint that is chosen, the loaded one unloaded, or settings changed, while a job trains."""

from __future__ import annotations

import shutil
import threading
from typing import Any

import numpy as np
import pytest
from jobs_over_http import API, begin, learn, until, vectors, write_toys
from PIL import Image
from safetensors.torch import load_file, save_file
from webui_server import Server

pytestmark = pytest.mark.slow
RUN: dict[str, Any] = {"steps": 4, "preview_every": 2, "preview_steps": 1}
CHECKPOINT = "sd_model_checkpoint"


@pytest.fixture(scope="module", autouse=True)
def other(server, checkpoint) -> None:
    """A second checkpoint, of other weights."""
    weights = load_file(checkpoint)
    network = {name: 0.9 * part for name, part in weights.items() if name.startswith("model.diffusion_model.input")}
    models = server.base / "models" / "Stable-diffusion"
    save_file(weights | network, models / "other.safetensors")
    if checkpoint.with_suffix(".yaml").exists():
        shutil.copy(checkpoint.with_suffix(".yaml"), models / "other.yaml")
    server.post("/sdapi/v1/refresh-checkpoints")
    write_toys(server)


def title(server: Server, name: str) -> str:
    models = server.get("/sdapi/v1/sd-models")
    return next(str(model["title"]) for model in models if model["model_name"] == name)


def previews(server: Server, name: str) -> dict[str, bytes]:
    """Their pixels."""
    folder = server.base / "ti-train" / "runs" / name
    return {path.name: Image.open(path).tobytes() for path in folder.glob("step*.png")}


def test_a_checkpoint_that_is_chosen_meanwhile_is_loaded_afterwards(server):
    drawn = server.picture("a photo of a toy")
    learn(server, name="calmtoy", **RUN)
    job = begin(server, name="switchedtoy", **RUN)
    until(server, job, "running", step=1)
    choice = {CHECKPOINT: title(server, "other")}
    choosing = threading.Thread(target=server.post, args=("/sdapi/v1/options", choice))  # AUTOMATIC1111 waits
    choosing.start()
    done = until(server, job, "done")
    choosing.join()
    assert done["messages"] == []
    assert np.array_equal(vectors(server, "switchedtoy"), vectors(server, "calmtoy"))
    assert previews(server, "switchedtoy") == previews(server, "calmtoy")
    assert server.get("/sdapi/v1/options")[CHECKPOINT] == choice[CHECKPOINT]
    assert server.picture("a photo of a toy") != drawn, "the other checkpoint is loaded"
    learn(server, name="of-the-other", **RUN)
    assert not np.array_equal(vectors(server, "of-the-other"), vectors(server, "calmtoy"))
    server.post("/sdapi/v1/options", {CHECKPOINT: title(server, "drawn")})
    assert server.picture("a photo of a toy") == drawn


@pytest.mark.parametrize("route", ["unload-checkpoint", "reload-checkpoint"])
def test_a_model_that_is_unloaded_meanwhile_trains_on(server, route):
    untouched = server.picture("a photo of a toy")
    learn(server, name="loadedtoy", **RUN, overwrite=True)
    job = begin(server, name=route, **RUN)
    for step in range(1, RUN["steps"]):
        until(server, job, "running", "done", step=step)
        server.post(f"/sdapi/v1/{route}")
    assert until(server, job, "done")["messages"] == []
    assert np.array_equal(vectors(server, route), vectors(server, "loadedtoy"))
    assert server.picture("a photo of a toy") == untouched


def test_settings_that_are_changed_meanwhile_end_the_run_and_it_goes_on_with_them_as_they_were(server):
    learn(server, name="steadytoy", steps=20)
    job = begin(server, name="skippingtoy", steps=20)
    until(server, job, "running", step=1)
    server.post("/sdapi/v1/options", {"CLIP_stop_at_last_layers": 2})
    failed = until(server, job, "failed")
    assert "The WebUI's settings were changed: the training has begun with clip skip 1" in failed["error"]
    assert 0 < failed["step"] < 20
    (told,) = failed["messages"]
    assert f"Continue from step {failed['step']} with Resume" in told
    server.post("/sdapi/v1/options", {"CLIP_stop_at_last_layers": 1})
    until(server, server.post(f"{API}/resume", {"name": "skippingtoy"})["id"], "done")
    assert np.array_equal(vectors(server, "skippingtoy"), vectors(server, "steadytoy"))
