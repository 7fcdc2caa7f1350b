"""Reloads of the embeddings folder, which wait for their turn in the WebUI's queue; no WebUI is needed."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest


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
