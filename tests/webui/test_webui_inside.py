"""The adapter inside of the WebUI's process: gradients, latents, previews, and what is put back."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def diffusers_host(checkpoint, hub):
    pytest.importorskip("diffusers")
    import clip_files
    import reference

    return reference.diffusers_host(checkpoint, clip_files.clip_folder(hub))


def test_gradient_and_latents_are_those_of_the_diffusers_host(server, diffusers_host, tmp_path):
    import reference

    before = server.get("/ti-train-test/state")
    data = reference.inputs()
    save_file(data, tmp_path / "data.safetensors")
    found = server.post("/ti-train-test/gradient", {"file": str(tmp_path / "data.safetensors")})
    theirs = load_file(tmp_path / "data.out.safetensors")

    loss, gradient = reference.gradient(diffusers_host, data)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["finite_differences"] < 0.01
    for checkpointing in ("False", "True"):
        difference = theirs[f"gradient_{checkpointing}"] - gradient
        assert difference.norm() <= 1e-4 * gradient.norm(), f"checkpointing {checkpointing}"
    latents = diffusers_host.latents(data["pictures"])
    assert (theirs["mean"] - latents.mean).norm() <= 1e-4 * latents.mean.norm()
    if "log_variance" in theirs:  # reForge's own encoding takes the mean
        assert torch.allclose(theirs["log_variance"], latents.log_variance, atol=1e-3)
    vocabulary = diffusers_host.vocabulary("clip_l")
    assert found["ids"] == vocabulary.tokenize("an oil painting")
    assert found["spelt"] == "cat"
    assert server.get("/ti-train-test/state") == before


def test_previews_follow_the_vectors_though_their_prompt_is_the_same(server):
    before = server.get("/ti-train-test/state")
    one, other, again = server.post("/ti-train-test/sample", {"side": 64, "steps": 2})["digests"]
    assert one == again != other
    assert server.get("/ti-train-test/state") == before
