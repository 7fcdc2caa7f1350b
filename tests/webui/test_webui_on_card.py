"""Training in a WebUI that runs on a pretended CUDA device, where its models are moved in and out of the card."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from jobs_over_http import API, begin, until, vectors, write_toys
from jobs_over_http import learn as learn_in_steps
from lora import drawn_lora
from safetensors.torch import save_file
from webui_server import HERE, PYTHON, Server, start

pytestmark = pytest.mark.slow
GIB = 6
FLAGS = {  # by how much of the card's memory the WebUI may use
    "a1111": {"normal": (), "medvram": ("--medvram",), "lowvram": ("--lowvram",)},
    "reforge": {"normal": (), "lowvram": ("--always-low-vram",), "highvram": ("--always-high-vram",)},
    "forge": {"normal": (), "lowvram": ("--always-low-vram",), "highvram": ("--always-high-vram",)},
}
PREVIEWED = {"preview_every": 1}
learn = partial(learn_in_steps, steps=2)


@pytest.fixture(scope="module", params=["normal", "medvram", "lowvram", "highvram"])
def server(request, webui, checkpoint, hub, tmp_path_factory) -> Iterator[Server]:
    from webui_server import kind_of

    flags = FLAGS[kind_of(webui)].get(request.param)
    if flags is None:
        pytest.skip(f"this WebUI has no '{request.param}' mode")
    ask = "from devices.pretend_cuda import reason_against; print(reason_against() or '', end='')"
    against = subprocess.run([PYTHON, "-c", ask], cwd=HERE.parent, capture_output=True, text=True, check=True).stdout
    if against:
        pytest.skip(against)
    running = start(webui, checkpoint, hub, tmp_path_factory.mktemp("webui"), flags, card=GIB)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def first(server) -> dict[str, Any]:
    """The first thing that the WebUI does: a training, whose previews push out what a step needs."""
    write_toys(server)
    return learn(server, name="firsttoy", **PREVIEWED)


@pytest.fixture(scope="module")
def untouched(server, first) -> bytes:
    return server.picture("a photo of a toy")


@pytest.fixture
def card(server) -> Iterator[Any]:
    """Says to the probe what is to happen to the card; all is well again afterwards."""

    def ask(route: str, value: Any) -> None:
        names = {"unload-after": "what", "resize": "what", "fail": "kernel"}
        server.post(f"/ti-train-test/{route}", {names[route]: value})

    yield ask
    ask("unload-after", "nothing")
    ask("resize", "whole")


@pytest.fixture
def moving(server) -> None:
    """Skips where nothing is ever moved."""
    if server.kind == "a1111" and not server.flags:
        pytest.skip("without --medvram AUTOMATIC1111 keeps everything on the card")


def test_training_is_the_first_thing_that_the_webui_does(server, first):
    assert (first["step"], first["error"]) == (2, "")
    found = server.get("/ti-train-test/card")
    assert found["device"] == "cuda"
    assert "torch.float16" in found["dtypes"]


def test_a_generation_after_it_gives_the_picture_of_before(server, untouched):
    learn(server, name="second", **PREVIEWED)
    assert server.picture("a photo of a toy") == untouched


def test_a_lora_of_the_generation_before_is_not_learnt_with(server, untouched):
    save_file(drawn_lora(), server.base / "models" / "Lora" / "drawn-lora.safetensors")
    server.post("/sdapi/v1/refresh-loras")
    learn(server, name="without")
    with_lora = server.picture("a photo of a toy <lora:drawn-lora:1>")
    assert with_lora != untouched
    learn(server, name="after-lora", preview_every=2)
    assert (vectors(server, "after-lora") == vectors(server, "without")).all()
    assert server.picture("a photo of a toy <lora:drawn-lora:1>") == with_lora
    assert server.picture("a photo of a toy") == untouched


def test_an_interrupted_run_resumes_to_the_result_of_an_uninterrupted_one(server, untouched):
    learn(server, name="whole", steps=3)
    job = begin(server, name="broken", steps=3)
    until(server, job, "running", step=1)
    server.post(f"{API}/interrupt", {"id": job})
    stopped = until(server, job, "interrupted")
    assert 1 <= stopped["step"] < 3
    assert server.picture("a photo of a toy") == untouched
    until(server, server.post(f"{API}/resume", {"id": job})["id"], "done")
    assert (vectors(server, "broken") == vectors(server, "whole")).all()


@pytest.mark.parametrize("what", ["step", "preview"])
def test_models_may_be_thrown_out_meanwhile(server, card, untouched, what):
    card("unload-after", what)
    assert learn(server, name=f"thrown-out-{what}", **PREVIEWED)["messages"] == []
    card("unload-after", "nothing")
    server.post("/sdapi/v1/reload-checkpoint")  # AUTOMATIC1111 does not by itself
    assert server.picture("a photo of a toy") == untouched


def test_a_model_that_is_thrown_out_within_a_step_ends_the_run_in_words_and_it_goes_on(server, untouched):
    learn(server, name="step-whole", steps=3)
    job = begin(server, name="step-thrown-out", steps=3)
    until(server, job, "running", step=1)
    server.post(f"{API}/interrupt", {"id": job})
    until(server, job, "interrupted")
    server.post("/ti-train-test/unload-in-step")
    job = server.post(f"{API}/resume", {"id": job})["id"]
    failed = until(server, job, "failed")
    assert "The model was unloaded from the GPU while a training step used it" in failed["error"]
    until(server, server.post(f"{API}/resume", {"id": job})["id"], "done")
    assert (vectors(server, "step-thrown-out") == vectors(server, "step-whole")).all()
    server.post("/sdapi/v1/reload-checkpoint")
    assert server.picture("a photo of a toy") == untouched


def test_a_card_where_each_model_pushes_out_the_others(server, card, untouched, moving):
    card("resize", "tight")
    assert server.picture("a photo of a toy") == untouched
    assert "cpu" in server.get("/ti-train-test/card")["devices"]
    learn(server, name="tight", **PREVIEWED)
    assert server.picture("a photo of a toy") == untouched


def test_a_card_that_is_too_small_is_told_in_words(server, card, untouched, moving):
    card("resize", "short")
    failed = until(server, begin(server, name="short"), "failed")
    assert re.search("not fit into GPU memory|ran out of memory", failed["error"])
    card("resize", "whole")
    learn(server, name="short", steps=1, overwrite=True)
    assert server.picture("a photo of a toy") == untouched


@pytest.mark.parametrize("kernel", [0, 200])
def test_a_memory_that_is_full_within_a_step_is_told_in_words(server, card, untouched, kernel):
    card("fail", kernel)
    failed = until(server, begin(server, name=f"full-{kernel}"), "failed")
    server.post("/ti-train-test/mend")
    assert "ran out of memory" in failed["error"]
    learn(server, name=f"full-{kernel}", steps=1, overwrite=True)
    assert server.picture("a photo of a toy") == untouched
