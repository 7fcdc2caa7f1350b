"""A word learnt on each family over HTTP: the loss falls, diffusers reads the same in the file, the rest stays."""

from __future__ import annotations

import time

import pytest
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from webui_server import FAMILIES

from ti_train.formats import load_embedding
from ti_train.host import Size, Slot

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("family", FAMILIES, indirect=True)]
STEPS, LEARNT_WITHIN = 50, 1800  # seconds


@pytest.fixture
def toys(server):
    folder = server.base / "ti-train" / "pictures" / "discs"
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (64, 64), (230, 230, 220))
    ImageDraw.Draw(picture).ellipse([12, 8, 52, 48], fill=(200, 40, 40))
    picture.save(folder / "red.png")


@pytest.mark.usefixtures("toys")
def test_a_word_is_learnt_and_says_the_same_in_diffusers(server, checkpoint, family, tmp_path, record_property):
    pytest.importorskip("diffusers")
    import reference

    before, untouched = server.get("/ti-train-test/state"), server.picture("a photo of a toy")
    request = {"name": "disctoy", "init": "toy", "pictures": "discs", "steps": STEPS, "batch_size": 1}
    request |= {"resolution": 64, "num_vectors": 2, "learning_rate": "2e-2"}
    job = server.post("/ti-train/v1/train", request)["id"]
    deadline = time.monotonic() + LEARNT_WITHIN
    while (now := server.get(f"/ti-train/v1/status?id={job}&history=true"))["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, now
        time.sleep(0.3)
    assert now["state"] == "done", now["error"]
    losses = [m["noise_free_loss"] for m in now["history"] if m["noise_free_loss"] is not None]
    record_property("noise-free loss", (losses[0], losses[-1]))
    record_property("seconds a step", now["seconds"] / STEPS)
    record_property("GiB of memory at most", server.peak_memory() / 2**30)
    assert losses[-1] < losses[0]

    after = server.get("/ti-train-test/state")
    for known in ("words", "lookup"):
        assert set(after.pop(known)) - set(before.pop(known)) == {"disctoy"}
    assert after == before
    assert server.picture("a photo of a toy") == untouched

    host = reference.diffusers_host(checkpoint, family)
    vectors = load_embedding(server.base / "embeddings" / "disctoy.safetensors").fitted_to(host.widths)
    asked = {"file": str(tmp_path / "condition"), "text": "a photo of a disctoy, in the rain"}
    server.post("/ti-train-test/condition", asked)
    theirs = load_file(tmp_path / "condition")
    prompt = ("a photo of a ", Slot("*"), ", in the rain")
    ours = host.encode([prompt], {"*": vectors}, [Size((64, 64), (0, 0), (64, 64))])
    hidden = ours["encoder_hidden_states"][0]
    assert (theirs["crossattn"] - hidden).norm() <= 1e-4 * hidden.norm()
    if family == "sdxl":
        pooled = ours["added_cond_kwargs"]["text_embeds"][0]
        assert (theirs["vector"][: len(pooled)] - pooled).norm() <= 1e-4 * pooled.norm()
    assert "nearest words:" in server.get("/ti-train/v1/info?name=disctoy")["text"]
