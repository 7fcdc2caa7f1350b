"""The adapter inside of the WebUI's process: gradients, latents, previews, and what is put back."""

from __future__ import annotations

import pytest
import torch
from lora import drawn_lora
from prompt_names import NAMES, REFUSED, WEBUI_PROMPTS
from safetensors.torch import load_file, save_file
from webui_server import FAMILIES

FOUND_HERE = {"my cat", "my\u00a0cat", "my\u3000cat", ",cat", "1.5", "15", "inf"}
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("family", FAMILIES, indirect=True)]


@pytest.fixture(scope="module")
def diffusers_host(checkpoint, family):
    pytest.importorskip("diffusers")
    import reference

    return reference.diffusers_host(checkpoint, family)


def test_gradient_and_latents_are_those_of_the_diffusers_host(server, diffusers_host, tmp_path, record_property):
    import reference

    before = server.get("/ti-train-test/state")
    data = reference.inputs(diffusers_host.widths)
    save_file(data, tmp_path / "data.safetensors")
    found = server.post("/ti-train-test/gradient", {"file": str(tmp_path / "data.safetensors")})
    theirs = load_file(tmp_path / "data.out.safetensors")

    loss, gradients = reference.gradient(diffusers_host, data)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["finite_differences"] < 0.01
    assert found["has_feed_forwards"], "by which name they are computed again"
    assert found["dropped"] == found["feed_forwards"] == []
    for checkpointing in ("False", "True"):
        for name, gradient in gradients.items():
            difference = theirs[f"gradient_{checkpointing}_{name}"] - gradient
            relative = float(difference.norm() / gradient.norm())
            record_property(f"gradient of {name}, checkpointing {checkpointing}", relative)
            assert relative <= 1e-4, f"{name}, checkpointing {checkpointing}"
    latents = diffusers_host.latents(data["pictures"])
    assert (theirs["mean"] - latents.mean).norm() <= 1e-4 * latents.mean.norm()
    if "log_variance" in theirs:  # reForge's own encoding takes the mean
        assert torch.allclose(theirs["log_variance"], latents.log_variance, atol=1e-3)
    for name, ids, spelt in zip(gradients, found["ids"], found["spelt"], strict=True):
        assert ids == diffusers_host.vocabulary(name).tokenize("an oil painting")
        assert spelt == "cat"
    assert server.get("/ti-train-test/state") == before


def test_a_lora_of_the_last_generation_is_not_in_the_weights(server, diffusers_host, family, tmp_path):
    """It stays in the model until another generation takes it out."""
    import reference

    if family != "sd1":
        pytest.skip("the LoRA is drawn for Stable Diffusion 1")
    save_file(drawn_lora(), server.base / "models" / "Lora" / "drawn-lora.safetensors")
    server.post("/sdapi/v1/refresh-loras")
    without = server.picture("a photo of a toy")
    with_lora = server.picture("a photo of a toy <lora:drawn-lora:1>")
    assert with_lora != without
    data = reference.inputs(diffusers_host.widths)
    save_file(data, tmp_path / "data.safetensors")
    server.post("/ti-train-test/gradient", {"file": str(tmp_path / "data.safetensors")})
    found = load_file(tmp_path / "data.out.safetensors")["gradient_False_clip_l"]
    gradient = reference.gradient(diffusers_host, data)[1]["clip_l"]
    assert (found - gradient).norm() <= 1e-4 * gradient.norm()
    assert server.picture("a photo of a toy <lora:drawn-lora:1>") == with_lora
    assert server.picture("a photo of a toy") == without


def test_conditions_are_those_of_a_generation_with_emphasis_and_clip_skip(server, family):
    norms = {}
    for skip, emphasis in ((3, "Original"), (1, "None"), (1, "Ignore"), (1, "No norm"), (1, "Original")):
        server.post("/sdapi/v1/options", {"CLIP_stop_at_last_layers": skip, "emphasis": emphasis})
        found = server.get("/ti-train-test/encoded")
        assert max(found["differences"]) < 1e-4, (skip, emphasis)
        assert found["settings"].startswith(f"clip skip {skip}, emphasis {emphasis}, ")
        norms[skip, emphasis] = found["norm"]
    if server.kind == "a1111" and not family.startswith("sd1"):  # A1111 skips nothing in the others
        del norms[3, "Original"]
    assert len(set(norms.values())) == len(norms), "a setting has no effect"


def test_noise_levels_are_those_of_a_generation_also_where_they_end_in_noise_alone(server):
    largest = {}
    for schedule, marked in (("Zero Terminal SNR", False), ("Default", True), ("Default", False)):
        if marked and server.kind == "a1111":
            continue
        server.post("/sdapi/v1/options", {"sd_noise_schedule": schedule})
        found = server.get(f"/ti-train-test/noise-levels?marked={marked}")
        assert found["ours"] == pytest.approx(found["theirs"], rel=1e-4), (schedule, marked)
        largest[schedule, marked] = found["ours"][-1]
        assert found["settings"].endswith(f"noise levels up to {found['ours'][-1]:.3g}")
    assert largest.pop(("Default", False)) < 200 < 4000 < min(largest.values())


def test_an_encoders_states_are_those_that_the_unet_reads(server):
    """A slot filled with a text's own rows is that text, and its place is known, in a further chunk too."""
    for found in server.get("/ti-train-test/conditioning"):
        assert max(found["text"], found["read"]) < 1e-5
        assert found["offset"] == 0
        assert found["gradient"] > 0


def test_other_families_are_refused_in_words(server):
    assert (
        "is not supported. In a WebUI, embeddings can be trained on Stable Diffusion 1, 2 and XL"
        in server.post("/ti-train-test/refused")["message"]
    )


def test_a_word_of_too_many_vectors_leaves_no_other_behind(server):
    before = server.get("/ti-train-test/state")
    said = server.post("/ti-train-test/too-many-vectors")["message"]
    assert "The embedding 'other' has 76 vectors, and the text encoder takes 75 at a time" in said
    assert server.get("/ti-train-test/state") == before


def test_previews_follow_the_vectors_though_their_prompt_is_the_same(server):
    before = server.get("/ti-train-test/state")
    one, other, again = server.post("/ti-train-test/sample", {"side": 64, "steps": 2})["digests"]
    assert one == again != other
    assert server.get("/ti-train-test/state") == before


def test_every_accepted_name_is_found_in_prompts_and_others_are_not(server):
    """The others that a WebUI finds are lost in ComfyUI's prompts; a number is a weight there."""
    request = {"names": [*NAMES, *REFUSED], "prompts": WEBUI_PROMPTS}
    missed = {name for name, _ in server.post("/ti-train-test/names", request)}
    assert not missed & {*NAMES}
    assert {*REFUSED} - missed == FOUND_HERE
