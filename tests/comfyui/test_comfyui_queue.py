"""What else a ComfyUI does before, during and after a training: samplings, other models, requests to free memory."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
import workflows as w
from comfyui_server import Server, failure
from PIL import Image
from safetensors import safe_open

from ti_train.formats import load_embedding

pytestmark = pytest.mark.slow
PREVIEWED: dict[str, Any] = {"preview_every": 2, "learning_rate": 0.01}


def tiny(family: str, name: str, **settings: Any) -> w.Workflow:
    """A training of a tiny model."""
    return w.training(name=name, **PREVIEWED | settings) | {"model": w.node("ProbeFamily", family=family)}


def sampling(family: str, seed: int, prefix: str) -> w.Workflow:
    model = {"model": w.node("ProbeFamily", family=family)}
    return model | w.sampling("a photo of a toy", ["model", 1], prefix, seed=seed)


def picture(server: Server, prompt: str) -> bytes:
    history = server.wait(prompt)
    assert failure(history) == "", server.said()[-2000:]
    return Image.open(server.files(history["outputs"], "save")[0]).tobytes()  # the file has the workflow too


def vectors(server: Server, name: str) -> dict[str, torch.Tensor]:
    return load_embedding(server.base / "models" / "embeddings" / f"{name}.safetensors").vectors


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[encoder], other[encoder]) for encoder in one)


def forget(server: Server) -> None:
    """Has ComfyUI compute everything anew: it keeps what its nodes have returned."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(2)  # it does so when its queue has been idle for a moment


@pytest.mark.parametrize("family", ["sdxl-vpred", "flux"])
def test_pictures_around_a_training_are_those_without_it(server, family):
    alone = [picture(server, server.queue(sampling(family, seed, f"alone-{family}"))) for seed in (1, 2)]
    forget(server)
    before = server.queue(sampling(family, 1, f"around-{family}"))
    training = server.queue(tiny(family, f"between-{family}", steps=4))
    after = server.queue(sampling(family, 2, f"around-{family}"))
    around = [picture(server, prompt) for prompt in (before, after)]
    assert failure(server.wait(training)) == ""
    assert [pixels == unchanged for pixels, unchanged in zip(around, alone, strict=True)] == [True, True]
    assert len({*around}) == 2


def test_trainings_of_two_models_after_one_another_are_what_each_is_alone(server):
    names = {}
    for number, family in enumerate(("sdxl-vpred", "flux", "sdxl-vpred", "flux")):
        names[f"turn-{number}"] = family
    prompts = [server.queue(tiny(family, name, steps=3)) for name, family in names.items()]
    assert [failure(server.wait(prompt)) for prompt in prompts] == [""] * 4
    for first, second in (("turn-0", "turn-2"), ("turn-1", "turn-3")):
        assert equal(vectors(server, first), vectors(server, second))


@pytest.mark.parametrize("asked", [{"unload_models": True}, {"unload_models": True, "free_memory": True}])
def test_a_request_to_free_memory_waits_for_the_training_and_changes_nothing(server, asked):
    name = f"freed-{len(asked)}"
    server.run(tiny("sdxl-vpred", f"calm-{name}", steps=40))
    prompt = server.queue(tiny("sdxl-vpred", name, steps=40))
    state = server.base / "models" / "embeddings" / f"{name}.resume"
    asked_at = []
    while prompt not in server.get(f"/history/{prompt}"):
        if state.exists():
            server.post("/free", asked)
            asked_at.append(step_of(state))
        time.sleep(0.1)
    assert failure(server.wait(prompt)) == ""
    assert len({*asked_at}) > 3, "in mid-run"
    assert equal(vectors(server, name), vectors(server, f"calm-{name}"))
    picture(server, server.queue(sampling("sdxl-vpred", 1, f"after-{name}")))


def step_of(state: Any) -> int:
    try:
        with safe_open(state, framework="pt") as file:
            return int(file.metadata()["step"])
    except OSError:  # it has ended
        return -1
