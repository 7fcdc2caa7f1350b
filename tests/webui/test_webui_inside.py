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


def test_a_lora_of_the_last_generation_is_not_in_the_weights(server, diffusers_host, tmp_path):
    """It stays in the model until another generation takes it out."""
    import reference

    save_file(drawn_lora(), server.base / "models" / "Lora" / "drawn-lora.safetensors")
    server.post("/sdapi/v1/refresh-loras")
    without = server.picture("a photo of a toy")
    with_lora = server.picture("a photo of a toy <lora:drawn-lora:1>")
    assert with_lora != without
    data = reference.inputs()
    save_file(data, tmp_path / "data.safetensors")
    server.post("/ti-train-test/gradient", {"file": str(tmp_path / "data.safetensors")})
    found = load_file(tmp_path / "data.out.safetensors")["gradient_False"]
    _, gradient = reference.gradient(diffusers_host, data)
    assert (found - gradient).norm() <= 1e-4 * gradient.norm()
    assert server.picture("a photo of a toy <lora:drawn-lora:1>") == with_lora
    assert server.picture("a photo of a toy") == without


def drawn_lora() -> dict[str, torch.Tensor]:
    """For the cross-attention of the small U-Net and a layer of the text encoder, in kohya's names."""
    torch.manual_seed(0)
    places = [f"{part}_attentions_0" for part in ("down_blocks_0", "mid_block", "up_blocks_0")]
    shapes = {f"lora_unet_{p}_transformer_blocks_0_attn2_to_{x}": (320, 768) for p in places for x in "kv"}
    shapes["lora_te_text_model_encoder_layers_0_mlp_fc1"] = (3072, 768)
    lora = {}
    for name, (rows, columns) in shapes.items():
        lora |= {f"{name}.lora_up.weight": 0.1 * torch.randn(rows, 4), f"{name}.alpha": torch.tensor(4.0)}
        lora[f"{name}.lora_down.weight"] = 0.1 * torch.randn(4, columns)
    return lora


def test_conditions_are_those_of_a_generation_with_emphasis_and_clip_skip(server):
    norms = []
    for skip in (2, 1):
        server.post("/sdapi/v1/options", {"CLIP_stop_at_last_layers": skip})
        found = server.get("/ti-train-test/encoded")
        assert max(found["differences"]) < 1e-4
        norms.append(found["norm"])
    assert norms[0] != norms[1], "the clip skip has no effect"


@pytest.mark.parametrize(
    ("attribute", "message"),
    [("is_sdxl", "is a Stable Diffusion XL"), ("is_sd2", "is a Stable Diffusion 2"), ("is_sd3", "Stable Diffusion 3")],
)
def test_other_families_are_refused_in_words(server, attribute, message):
    assert message in server.post("/ti-train-test/refused", {"attribute": attribute})["message"]


def test_moving_parts_are_refused_in_words(server):
    if server.kind != "a1111":
        pytest.skip("only A1111 moves the model's parts by hooks")
    assert "--medvram" in server.post("/ti-train-test/refused", {"attribute": "lowvram"})["message"]


def test_previews_follow_the_vectors_though_their_prompt_is_the_same(server):
    before = server.get("/ti-train-test/state")
    one, other, again = server.post("/ti-train-test/sample", {"side": 64, "steps": 2})["digests"]
    assert one == again != other
    assert server.get("/ti-train-test/state") == before
