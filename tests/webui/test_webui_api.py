"""Training over HTTP in a running WebUI."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from webui_server import RefusedError, Server

from ti_train.embedding import Embedding
from ti_train.formats import layout_for, load_embedding, save_embedding, write_embedding

pytestmark = pytest.mark.slow
API = "/ti-train/v1"
QUICK = {"init": "toy", "pictures": "toys", "steps": 3, "batch_size": 1, "resolution": 64}


@pytest.fixture(scope="module", autouse=True)
def toys(server):
    folder = server.base / "ti-train" / "pictures" / "toys"
    folder.mkdir(parents=True)
    for name, colour, size in (("blue", (40, 60, 200), (64, 64)), ("red", (200, 40, 40), (80, 64))):
        picture = Image.new("RGB", size, (230, 230, 220))
        ImageDraw.Draw(picture).ellipse([12, 8, 52, 48], fill=colour)
        picture.save(folder / f"{name}.png")


def status(server: Server, job: str, history: bool = False) -> dict[str, Any]:
    return server.get(f"{API}/status?id={quote(job)}&history={history}")


def begin(server: Server, **settings: Any) -> str:
    return str(server.post(f"{API}/train", QUICK | settings)["id"])


def until(server: Server, job: str, *states: str, step: int = 0) -> dict[str, Any]:
    """Waits for one of the states, at a step or later."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        now = status(server, job)
        if now["state"] in states and now["step"] >= step:
            return now
        assert now["state"] in ("queued", "running"), now
        time.sleep(0.1)
    raise TimeoutError(f"{now}\n{server.said()[-3000:]}")


def learn(server: Server, **settings: Any) -> dict[str, Any]:
    return until(server, begin(server, **settings), "done")


def vectors(server: Server, name: str) -> np.ndarray:
    return load_embedding(server.base / "embeddings" / f"{name}.safetensors").vectors["emb_params"].numpy()


def test_a_word_is_learnt_and_everything_else_is_as_it_was(server):
    untouched = server.picture("a photo of a toy")
    unknown = server.picture("a photo of a apitoy")
    before = server.get("/ti-train-test/state")
    asked = time.monotonic()
    job = begin(server, name="apitoy", num_vectors=2, preview_every=3)
    assert time.monotonic() - asked < 5, "train answers at once"
    done = until(server, job, "done")
    assert (done["step"], done["error"]) == (3, "")
    assert [m["step"] for m in status(server, job, history=True)["history"]] == [0, 1, 2, 3]

    after = server.get("/ti-train-test/state")
    assert after.pop("words") == [*before.pop("words"), "apitoy"]
    assert after.pop("lookup") == [*before.pop("lookup"), "apitoy"]
    assert after == before
    assert server.picture("a photo of a toy") == untouched
    learnt = server.picture("a photo of a apitoy")
    assert learnt != unknown, "the word works in the next prompt"
    assert server.picture("a photo of a apitoy") == learnt

    assert vectors(server, "apitoy").shape == (2, 768)
    records = server.base / "ti-train" / "runs" / "apitoy"
    assert {path.name for path in records.iterdir()} == {"loss.csv", "step00000-0.png", "step00003-0.png"}
    (row,) = [word for word in server.get(f"{API}/list") if word["name"] == "apitoy"]
    assert (row["vectors"], row["widths"], row["step"]) == (2, [768], 3)
    assert "nearest words: toy" in server.get(f"{API}/info?name=apitoy")["text"]


def test_a_word_that_is_learnt_again_is_not_remembered_as_it_was(server):
    learn(server, name="twice")
    first = server.picture("a photo of a twice")
    learn(server, name="twice", seed=1, overwrite=True, learning_rate="0.5")
    assert server.picture("a photo of a twice") != first


@pytest.mark.parametrize("file", ["given.pt", "given.png"])
def test_learning_goes_on_from_a_file_of_any_layout(server, file):
    rows = 0.1 * np.random.default_rng(0).standard_normal((2, 768), dtype=np.float32)
    word = Embedding("given", {"emb_params": torch.from_numpy(rows)}, {})
    write_embedding(word, server.base / "embeddings" / file, layout_for(Path(file)))
    learn(server, name="gone-on", init=file, num_vectors=2, learning_rate="0", overwrite=True)
    assert np.array_equal(vectors(server, "gone-on"), rows)


def test_an_interrupted_run_resumes_to_the_result_of_an_uninterrupted_one(server):
    learn(server, name="whole", steps=12)
    untouched = server.picture("a photo of a toy")
    job = begin(server, name="broken", steps=12)
    until(server, job, "running", step=2)
    server.post(f"{API}/interrupt", {"id": job})
    stopped = until(server, job, "interrupted")
    assert 2 <= stopped["step"] < 12
    assert server.picture("a photo of a toy") == untouched
    with safe_open(server.base / "embeddings" / "broken.resume", framework="pt") as file:
        assert int(file.metadata()["step"]) == stopped["step"]

    again = server.post(f"{API}/resume", {"id": job})["id"]
    until(server, again, "done")
    assert np.array_equal(vectors(server, "broken"), vectors(server, "whole"))
    steps = [m["step"] for m in status(server, again, history=True)["history"]]
    assert steps == list(range(13)), "the table goes on where it ended"
    with pytest.raises(RefusedError, match="There is nothing to resume"):
        server.post(f"{API}/resume", {"id": again})


def test_the_hosts_own_interrupt_ends_a_preview_and_keeps_the_word(server):
    job = begin(server, name="previewed", preview_every=1, steps=50)
    until(server, job, "running", step=1)
    server.post("/sdapi/v1/interrupt")
    assert until(server, job, "interrupted")["step"] >= 1
    assert server.get("/sdapi/v1/progress")["state"]["interrupted"] is False
    assert (server.base / "embeddings" / "previewed.safetensors").is_file()


def test_after_a_failure_within_a_step_everything_is_as_it_was(server):
    learn(server, name="failing")  # the word's file is there before and after
    untouched, before = server.picture("a photo of a toy"), server.get("/ti-train-test/state")
    server.post("/ti-train-test/break")
    failed = until(server, begin(server, name="failing", overwrite=True), "failed")
    assert "RuntimeError: broken by the test" in failed["error"]
    assert server.get("/ti-train-test/state") == before
    assert server.picture("a photo of a toy") == untouched


def test_a_generation_waits_its_turn_and_a_training_too(server):
    untouched = server.picture("a photo of a toy")
    pictures: list[bytes] = []
    job = begin(server, name="queue-a", steps=4)
    until(server, job, "running")
    generation = threading.Thread(target=lambda: pictures.append(server.picture("a photo of a toy")))
    generation.start()
    time.sleep(1)
    waiting = begin(server, name="queue-b")
    assert status(server, waiting)["state"] == "queued"
    generation.join()
    assert status(server, job)["state"] == "done", "the generation came before the training had ended"
    assert pictures == [untouched]
    until(server, waiting, "done")


def test_a_waiting_job_can_be_called_off(server):
    first, second = begin(server, name="called-a", steps=6), begin(server, name="called-b")
    server.post(f"{API}/interrupt", {"id": second})
    until(server, first, "done")
    assert until(server, second, "interrupted")["step"] == 0
    assert not (server.base / "embeddings" / "called-b.safetensors").exists()


def test_progress_is_the_hosts_own(server):
    job = begin(server, name="seen", steps=8)
    until(server, job, "running", step=2)
    told = server.post("/internal/progress", {"id_task": job, "live_preview": False})
    assert told["active"]
    assert told["progress"] >= 2 / 8
    assert "Learning 'seen': step" in told["textinfo"]
    until(server, job, "done")
    assert server.post("/internal/progress", {"id_task": job, "live_preview": False})["completed"]


def test_a_file_of_ours_that_is_dropped_into_the_folder_works(server):
    unknown = server.picture("a photo of a dropped")
    values = 0.1 * np.random.default_rng(0).standard_normal((2, 768), dtype=np.float32)
    word = Embedding("dropped", {"emb_params": torch.from_numpy(values)}, {})
    save_embedding(word, server.base / "embeddings" / "dropped.safetensors")
    assert "dropped" in [row["name"] for row in server.post(f"{API}/refresh")]
    assert server.picture("a photo of a dropped") != unknown


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a/b"}, "has a character that file names cannot have"),
        ({"name": "../up"}, "has a character|begins or ends with a dot"),
        ({"pictures": "../.."}, "is outside of"),
        ({"pictures": "/etc"}, "is outside of"),
        ({"pictures": "absent"}, "There is no folder"),
        ({"init": "../../secret.safetensors"}, "has a character|begins or ends with a dot"),
        ({"init": "../../secret.pt"}, "has a character|begins or ends with a dot"),
        ({"templates": "/etc/passwd"}, "There are no templates '/etc/passwd'"),
        ({"learning_rate": "fast"}, "cannot be read at 'fast'"),
        ({"preset": "Best"}, "There is no preset 'Best'"),
        ({"steps": 0}, "greater than or equal to 1"),
    ],
)
def test_mistakes_are_told_at_once(server, settings, message):
    with pytest.raises(RefusedError, match=message):
        server.post(f"{API}/train", QUICK | {"name": "mistaken"} | settings)


def test_a_word_is_not_overwritten_unasked(server):
    (server.base / "embeddings" / "kept.safetensors").write_bytes(b"")
    with pytest.raises(RefusedError, match="The word 'kept' exists"):
        server.post(f"{API}/train", QUICK | {"name": "kept"})


def test_unknown_jobs_are_404(server):
    with pytest.raises(RefusedError, match="404"):
        server.get(f"{API}/status?id=nobody")


@pytest.mark.parametrize("user", ["tester:wrong", "nobody:secret", ":"])
def test_the_hosts_api_auth_holds(server, user):
    with pytest.raises(RefusedError, match="401"):
        server.get(f"{API}/list", user)


def test_the_api_is_described_in_the_hosts_own_docs(server):
    described = server.get("/openapi.json")
    names = {"train", "status", "interrupt", "resume", "list", "info", "refresh"}
    assert {f"{API}/{name}" for name in names} <= set(described["paths"])
    properties = described["components"]["schemas"]["TrainRequest"]["properties"]
    assert all("description" in field for field in properties.values())
