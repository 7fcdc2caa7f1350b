"""Weights as people have them: of few bits, and in parts in system memory. See low_bit.py and offloaded.py."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import offloaded
import pytest
from devices.runner import on_card
from low_bit import LAYOUTS

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent
KINDS = ("fp8", "fp16", "packed", *LAYOUTS)
FOUR_BITS = ("nvfp4",)


@pytest.fixture(scope="module")
def has_layouts(comfyui) -> bool:
    """Whether this ComfyUI stores weights in the layouts of its own kernels; older ones have fp8 alone."""
    return "comfy-kitchen" in (comfyui / "requirements.txt").read_text(encoding="utf-8")


@pytest.fixture
def lays_out(has_layouts) -> None:
    if not has_layouts:
        pytest.skip("How much of a model is on the card is set for the memory management of ComfyUI 0.33")


@pytest.mark.parametrize("family", ["flux", "z-image"])
def test_the_gradient_reaches_the_vectors_through_weights_of_few_bits(comfyui, comfyui_python, has_layouts, family):
    if family == "z-image" and not has_layouts:
        pytest.skip("This ComfyUI is older than Z-Image")
    kinds = KINDS if has_layouts else KINDS[:2]
    command = [comfyui_python, str(HERE / "low_bit.py"), family, *kinds]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=comfyui, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    for kind, found in json.loads(done.stdout.splitlines()[-1]).items():
        assert found["cosine"] > (0.4 if kind in FOUR_BITS else 0.9), kind  # to that of the weights before rounding
        # of those after it; ComfyUI's kernel for int8 rounds activations too
        assert found["rounded"] < (0.05 if kind == "int8" else 1e-3), kind
        assert found["checkpointed"] < 1e-5, kind
        assert found["untouched"], kind


@pytest.mark.usefixtures("lays_out")
@pytest.mark.parametrize("family", ["flux", "z-image"])
def test_weights_that_are_fetched_by_layers_train_as_others_do(comfyui, comfyui_python, family):
    found = on_card(offloaded.looked_at, family, ["fp8", "fp16"], gib=8, python=comfyui_python, cwd=comfyui)
    for kind in ("fp8", "fp16"):
        assert found[kind]["untouched"]
        for mode, (state, crowded) in offloaded.MODES.items():
            case = found[f"{kind}, {mode}"]
            assert case["cosine"] > 0.9, (kind, mode)
            for encoder, gradient in found[f"{kind}, whole"]["gradient"].items():
                assert case["gradient"][encoder] == pytest.approx(
                    gradient, rel=1e-3, abs=1e-4 * max(map(abs, gradient))
                )
            assert case["checkpointed"] < 1e-5, (kind, mode)
            assert (case["on the card"] < 0.9) == (crowded or state == "NO_VRAM"), (kind, mode)


@pytest.mark.usefixtures("lays_out")
def test_a_model_is_the_same_however_much_of_it_is_on_the_card(comfyui, comfyui_python):
    """Of what is on the card ComfyUI has LoRAs patched into the weights, else it adds them at each call."""
    found = on_card(offloaded.identities, "flux", gib=8, python=comfyui_python, cwd=comfyui)
    for kind, fingerprints in found.items():
        assert len(set(fingerprints)) == 1, kind
    assert found["plain"] == found["nothing"][:1], "it is that of the weights"
    assert len({each[0] for each in found.values()}) == len(found) - 1, (
        "a LoRA, its strength and a shift are part of it"
    )
