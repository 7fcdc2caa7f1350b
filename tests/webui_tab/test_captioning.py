"""Captioning, which waits for its turn in the WebUI's queue; no WebUI is needed."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

from PIL import Image


def test_what_has_a_caption_when_the_turn_comes_keeps_it(load_in_webui, monkeypatch, tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "teal").save(tmp_path / f"{name}.png")
    webui, queue, ended = sys.modules["modules"], threading.Lock(), threading.Semaphore(0)
    webui.call_queue.queue_lock = queue
    webui.shared.state = SimpleNamespace(interrupted=False, begin=lambda job: None, end=lambda: None)
    webui.progress.finish_task = lambda task: ended.release()
    captioning = load_in_webui("webui_tab.captioning")
    monkeypatch.setattr(captioning.folders, "picture_folder", lambda folder, write: tmp_path)
    texts = iter(["of the interrogator", "of a second press"])
    monkeypatch.setitem(captioning.INTERROGATORS, "BLIP", lambda image: next(texts))
    with queue:
        for _ in range(2):
            captioning.start("here", "BLIP")
        (tmp_path / "a.txt").write_text("of the user")
    assert all(ended.acquire(timeout=20) for _ in range(2))
    assert (tmp_path / "a.txt").read_text() == "of the user"
    assert (tmp_path / "b.txt").read_text() == "of the interrogator"
