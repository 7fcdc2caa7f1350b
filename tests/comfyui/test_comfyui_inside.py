"""The adapter inside of ComfyUI's process: gradients, what is put back, and a full memory. See inside.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from prompt_names import NAMES, REFUSED

from ti_train.host import Size, Slot
from ti_train.training.objective import add_noise, denoising_loss, target

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent


@pytest.fixture
def look(comfyui, comfyui_python, drawn, tmp_path):
    def look(check: str, family: str = "sd1", checkpoint: Path | None = None) -> dict:
        files = [checkpoint or drawn / f"{family}.safetensors", drawn / f"{family}-lora.safetensors"]
        command = [comfyui_python, str(HERE / "inside.py"), check, *map(str, files)]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*command, str(tmp_path)], cwd=comfyui, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return look


FOUND_HERE = {"cat!", "cat_", "cat-", "🐱", "AND", "BREAK", "my-AND-dog", "#1", "a#b", "a{b}"}
ENCODERS = {"sd1": {"clip_l": 768}, "sd2-v": {"clip_h": 1024}, "sdxl": {"clip_l": 768, "clip_g": 1280}}


@pytest.mark.parametrize(("family", "encoders"), ENCODERS.items(), ids=ENCODERS)
def test_the_gradient_is_that_of_the_function(look, family, encoders):
    found = look("gradient", family)
    assert found["prediction"] == ("v" if family == "sd2-v" else "eps")
    assert found["encoders"] == encoders
    assert min(found["norms"].values()) > 0
    assert max(found["finite_differences"].values()) < 0.01
    assert max(found["patched"].values()) < 0.01, "of a model with a patch that changes tensors in place"
    assert found["checkpointed"] < 1e-5
    assert found["has_feed_forwards"], "by which name they are computed again"
    assert found["dropped"] == found["feed_forwards"] == 0, "what backward makes again are the same bits"
    assert found["latents"]


def test_the_gradient_is_that_of_the_diffusers_host(look, world, tmp_path):
    pytest.importorskip("diffusers")
    from ti_train.hosts.diffusers.host import DiffusersHost

    found = look("gradient", checkpoint=world / "comfyui" / "checkpoints" / "world.safetensors")
    assert found["finite_differences"]["clip_l"] < 0.01
    host = DiffusersHost.load(world / "diffusers", "cpu", "float32")
    host.text_encoders[0].half().float()  # as the checkpoint stores it; the folder has more digits
    assert_repeated(host, torch.load(tmp_path / "gradient.pt"))


@pytest.mark.parametrize("family", ["sd2-v", "sdxl"])
def test_the_gradient_of_the_other_families_too(look, drawn, family, tmp_path):
    pytest.importorskip("diffusers")
    from diffusers_twin import twin

    from ti_train.hosts.diffusers.host import DiffusersHost

    look("gradient", family)
    pipeline = twin(drawn / f"{family}.safetensors", family)
    assert_repeated(DiffusersHost(pipeline, torch.device("cpu"), torch.float32), torch.load(tmp_path / "gradient.pt"))


def assert_repeated(host, data: dict) -> None:
    """What was computed inside ComfyUI, once more by the diffusers host: the same gradients."""
    sigma = host.sigmas[[150, 700]]
    prompts = [("a photo of a ", Slot("*")), ("a rendering of the ", Slot("*"), ", in the rain")]
    sizes = [Size((96, 64), (16, 0), (64, 64)), Size((64, 64), (0, 0), (64, 64))]
    vectors = {encoder: v.clone().requires_grad_() for encoder, v in data["vectors"].items()}
    with host.training():
        noisy = add_noise(data["x0"], data["noise"], sigma, host.prediction)
        predicted = host.predict(noisy, sigma, host.encode(prompts, {"*": vectors}, sizes))
        denoising_loss(predicted, target(data["x0"], data["noise"], sigma, host.prediction)).mean().backward()
    for encoder, v in vectors.items():
        assert (data["gradient"][encoder] - v.grad).norm() <= 1e-4 * v.grad.norm(), encoder


def test_everything_is_put_back(look):
    found = look("restored")
    assert found["step"], "a weight is not the object that it was before a step"
    assert found["interrupt"], "a weight is not the object that it was before an interrupted step"
    assert found["patched differs"]
    assert found["gradient differs"], "the LoRA has no effect on the gradient"
    assert found["unloaded"], "weights of the LoRA stayed behind"
    assert found["aliases"] == [], "aliases stayed behind"
    assert found["again"] == 0


def test_a_full_memory_is_met_with_smaller_batches_and_then_told(look):
    found = look("out_of_memory")
    assert found["steps"] == [0, 1, 2, 3, 4]
    assert found["difference"] < 1e-3
    assert "Batch size 1 at 64 pixels does not fit, even with gradient checkpointing" in found["message"]
    assert found["kept"] == [], "no step was trained: there is nothing to save"


def test_a_model_is_known_by_what_is_read_of_its_file_and_what_nodes_have_set(look):
    settings = ["clip skip none", "clip skip -2", "clip skip none, min_length 12", "clip skip none, guidance 3.5"]
    weights = {"projection.weight": False, "model.final_layer_norm.weight": True}
    assert look("identity") == weights | {"settings": settings}


@pytest.mark.skipif(sys.platform != "linux", reason="measured with /proc")
def test_a_training_on_the_cpu_does_not_grow(look):
    assert look("growth") < 100e6, "bytes; 70e6 for each step where freed memory stays with the process"


def test_what_the_page_is_told_of_a_long_run_does_not_grow_with_it(look):
    held, snapshot = zip(*look("long_run").values(), strict=True)
    assert max(held) < 600_000, "bytes; the points of ten thousand steps alone are more"
    assert max(snapshot) < 40_000, "characters"


def test_the_previews_of_a_long_run_fit_into_memory(look):
    """All of 500 previews at 1024 pixels would be 6 GB. One more than the even number: the latest is always there."""
    sizes = look("previews_output")
    assert max(sizes.values()) < 700 * 2**20


def test_every_accepted_name_is_found_in_prompts_and_others_are_not(look):
    """The others that ComfyUI finds are lost in a WebUI's prompts; braces are the page's dynamic prompts."""
    missed = {name for name, _ in look("names")}
    assert not missed & {*NAMES, "pets/cat"}
    assert {*REFUSED} - missed == FOUND_HERE
