"""What needs the model, which waits for its turn in the WebUI's queue; no WebUI is needed."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from vanishing import at_each_moment


@pytest.fixture
def queue(load_in_webui) -> threading.Lock:
    lock = threading.Lock()
    sys.modules["modules"].call_queue.queue_lock = lock
    return lock


def test_requests_during_a_training_wait_in_one_thread(queue, load_in_webui, monkeypatch):
    files = load_in_webui("webui_tab.embedding_files")
    reloads = threading.Semaphore(0)
    monkeypatch.setattr(files, "connect", lambda: SimpleNamespace(reload_embeddings=reloads.release))
    before = threading.active_count()
    with queue:
        for _ in range(5):
            files.reload_later()
        assert threading.active_count() == before + 1
    assert reloads.acquire(timeout=10)
    files.reload_later()
    assert reloads.acquire(timeout=10), "a later request is done too"
    assert not reloads.acquire(timeout=0.2), "and nothing else"


def test_nothing_waits_for_a_captioning(load_in_webui, monkeypatch, tmp_path):
    webui, queue = sys.modules["modules"], threading.RLock()  # who waited here would go on, and be found out
    webui.call_queue.queue_lock = queue
    webui.shared.cmd_opts = SimpleNamespace(embeddings_dir=str(tmp_path))
    webui.progress.create_task_id = str
    files, captioning = load_in_webui("webui_tab.embedding_files"), load_in_webui("webui_tab.captioning")
    monkeypatch.setattr(captioning.folders, "picture_folder", lambda folder, write: tmp_path / "images")
    monkeypatch.setattr(files, "reload_later", lambda: None)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "images" / "a.png")
    save_file({"emb_params": torch.ones(1, 4)}, tmp_path / "toy.safetensors")
    with queue:
        captioning.start("images", "BLIP")
        assert files.reload() == files.RELOADED_LATER
        assert files.NOT_LOOKED_UP in files.report("toy")
    deadline = time.monotonic() + 20
    while captioning.active():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_embedding_that_is_deleted_meanwhile_is_left_out(load_in_webui, tmp_path):
    sys.modules["modules"].shared.cmd_opts = SimpleNamespace(embeddings_dir=str(tmp_path))
    files = load_in_webui("webui_tab.embedding_files")
    for name in ("dog", "toy", "pets/cat"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_file({"emb_params": torch.ones(1, 4)}, tmp_path / f"{name}.safetensors")

    def listed() -> list[str]:
        return [row.get("problem", row["name"]) for row in files.listed()]

    for gone, others in (("toy.safetensors", ["dog", "cat"]), ("pets", ["dog", "toy"])):
        looks = list(at_each_moment(tmp_path / gone, listed))
        assert looks
        assert all(there == others for there in looks), "and no row says that it cannot be read"
        assert listed() == ["dog", "cat", "toy"], "it is back as it was"


def test_a_request_that_is_deleted_meanwhile_is_of_no_job(load_in_webui, tmp_path):
    sys.modules["modules"].shared.cmd_opts = SimpleNamespace(embeddings_dir=str(tmp_path))
    sys.modules["modules"].shared.opts = SimpleNamespace(ti_train_folder=str(tmp_path))
    unfinished = load_in_webui("webui_tab.unfinished")
    request = load_in_webui("webui_tab.request").TrainRequest(name="toy", pictures="toy")
    unfinished.keep("task(1)", request)
    file = tmp_path / "unfinished" / "toy.json"
    for ask in (lambda: unfinished.of_embedding("toy"), lambda: unfinished.of_job("task(1)")):
        assert set(at_each_moment(file, ask)) == {None}
        assert ask() == request
    unfinished.keep("task(2)", request.copy(update={"name": "pets/cat"}))
    assert set(at_each_moment(file.parent / "pets", lambda: unfinished.of_job("task(2)"))) == {None}
    assert unfinished.of_job("task(2)").name == "pets/cat"
