"""Captioning, which waits for its turn in the WebUI's queue; no WebUI is needed."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def captioning(load_in_webui, monkeypatch, tmp_path) -> Any:
    """The module, in a WebUI whose only folder of images is tmp_path."""
    webui = sys.modules["modules"]
    webui.call_queue.queue_lock = threading.Lock()
    running: list[str] = []
    webui.shared.state = SimpleNamespace(
        interrupted=False, begin=lambda job: running.append(job), end=running.pop, running=running
    )
    module = load_in_webui("webui_tab.captioning")
    monkeypatch.setattr(module.folders, "picture_folder", lambda folder, write: tmp_path)
    return module


def test_a_folder_that_a_server_allows_for_reading_gets_no_captions(load_in_webui, tmp_path):
    webui = sys.modules["modules"]
    webui.paths_internal.data_path = str(tmp_path / "webui")
    webui.shared.opts = SimpleNamespace(ti_train_folder="")
    webui.shared.cmd_opts = SimpleNamespace(webui_is_non_local=True, gradio_allowed_path=[str(tmp_path)])
    with pytest.raises(ValueError, match="is outside of"):
        load_in_webui("webui_tab.captioning").start(str(tmp_path), "BLIP")


def test_what_has_a_caption_when_the_turn_comes_keeps_it(captioning, monkeypatch, tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "teal").save(tmp_path / f"{name}.png")
    ended = threading.Semaphore(0)
    monkeypatch.setattr(captioning.progress, "finish_task", lambda task: ended.release())
    texts = iter(["of the interrogator", "of a second press"])
    monkeypatch.setitem(captioning.INTERROGATORS, "BLIP", lambda image: next(texts))
    with captioning.call_queue.queue_lock:
        for _ in range(2):
            captioning.start("here", "BLIP")
        (tmp_path / "a.txt").write_text("of the user")
    assert all(ended.acquire(timeout=20) for _ in range(2))
    assert (tmp_path / "a.txt").read_text() == "of the user"
    assert (tmp_path / "b.txt").read_text() == "of the interrogator"
    assert captioning.shared.state.running == [], "the WebUI shows no progress any more"


def test_a_caption_that_cannot_be_read_is_not_replaced(captioning, tmp_path):
    contents = {"a": "赤い猫".encode("shift-jis"), "b": b" \n", "c": b"of the user"}
    for name, content in contents.items():
        Image.new("RGB", (64, 64), "teal").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_bytes(content)
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "d.png")
    assert [path.name for path in captioning.without_caption(tmp_path)] == ["b.png", "d.png"]


def test_an_image_that_cannot_be_captioned_does_not_keep_the_others_from_it(captioning, monkeypatch, tmp_path):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
    for name, side in (("a", 64), ("huge", 200), ("z", 64)):
        Image.new("RGB", (side, side), "teal").save(tmp_path / f"{name}.png")
    note = captioning._captioned(captioning.without_caption(tmp_path), lambda image: "a toy")
    assert note.startswith("2 caption(s) written")
    assert "huge.png cannot be read: it is too large" in note
    assert (tmp_path / "z.txt").read_text() == "a toy"


def test_notes_that_no_page_asks_for_are_not_kept_for_ever(captioning, monkeypatch, tmp_path):
    monkeypatch.setattr(captioning, "MOST", 3)
    monkeypatch.setattr(captioning, "_notes", {})
    for number in range(9):
        captioning._work(f"task({number})", tmp_path, lambda image: "a toy")
    assert [*captioning._notes] == ["task(6)", "task(7)", "task(8)"]
    captioning._active.update(range(3))
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="3 captionings wait"):
        captioning.start("here", "BLIP")
