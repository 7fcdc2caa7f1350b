"""Train Embedding on a pretended card: it trains in every memory mode and leaves the model as it was (on_card.py)."""

from __future__ import annotations

from typing import Any

import on_card as cases
import pytest
from devices.runner import on_card

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(comfyui, comfyui_python, drawn, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """All cases in one process: ComfyUI takes longer to start than any of them to run."""
    files = (drawn / "sd1.safetensors", drawn / "sd1-lora.safetensors", tmp_path_factory.mktemp("card"))
    answer: dict[str, dict[str, Any]] = on_card(cases.try_all, *map(str, files), python=comfyui_python, cwd=comfyui)
    return answer


@pytest.mark.parametrize("name", cases.CASES)
def test_it_trains_and_the_model_samples_the_picture_of_before(found, name):
    case = found[name]
    assert "error" not in case, case["error"]
    assert case["picture"], "another picture than before the training"
    assert case["changed"] == [], "weights have other values than before the training"
    assert case["dtype"] == "torch.float16"
    given = cases.CASES[name]
    crowded = given.gib == cases.SMALL and given.vram != "LOW_VRAM"  # which keeps the text encoder on the CPU
    assert case["displaced"] == (crowded or given.greedy_vae), "it was not tried where others take the model's place"


@pytest.mark.parametrize("name", [name for name, case in cases.CASES.items() if case != cases.Case()])
def test_the_word_does_not_depend_on_where_weights_were_moved(found, name):
    case = cases.CASES[name]
    alike = next(other for other, plain in cases.CASES.items() if plain.same_numbers(case))
    assert found[name]["vectors"] == found[alike]["vectors"]
