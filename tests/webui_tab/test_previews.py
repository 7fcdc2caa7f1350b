"""The previews that the tab keeps; no WebUI is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from ti_train.embedding import Embedding
from ti_train.events import Preview


@pytest.fixture
def module(load_in_webui, tmp_path) -> Any:
    """In a WebUI whose training folder is tmp_path."""
    sys.modules["modules"].shared.opts = SimpleNamespace(ti_train_folder=str(tmp_path))
    return load_in_webui("webui_tab.previews")


def test_a_long_run_keeps_a_few_small_previews(module):
    previews = module.Previews(("a *", "the *"))
    image = Image.new("RGB", (1024, 768), "teal")
    for step in range(0, 500, 5):
        for number, prompt in enumerate(("a *", "the *")):
            previews.add(Preview(step, prompt, image, Embedding("it", {}), number))
    assert previews.seen == 200
    shown = previews.shown()
    assert len(shown) <= 2 * (module.KEPT + 1)
    assert shown[0][1] == "step 0: a *"
    assert shown[-1][1] == "step 495: the *"
    with Image.open(shown[0][0]) as small:
        assert small.size == (512, 384)
    folder = Path(shown[0][0]).parent
    assert len([*folder.iterdir()]) <= len(shown) + module.KEPT, "those that are no longer shown are gone"
    del previews
    assert not [*folder.parent.iterdir()]


def test_a_page_can_read_what_was_shown_before_the_latest_preview(module):
    previews = module.Previews(("a *",))
    for step in range(200):
        shown = previews.shown()
        previews.add(Preview(step, "a *", Image.new("RGB", (8, 8), "teal"), Embedding("it", {}), 0))
        assert all(Path(file).is_file() for file, _ in shown + previews.shown())


def test_a_run_without_previews_has_no_folder_for_them(module, tmp_path):
    previews = module.Previews(("a *",))
    assert (previews.shown(), previews.seen, [*tmp_path.iterdir()]) == ([], 0, [])


def test_equal_prompts_have_previews_of_their_own(module):
    previews = module.Previews(("a *", "a *"))
    for number, colour in enumerate(("red", "blue")):
        previews.add(Preview(0, "a *", Image.new("RGB", (8, 8), colour), Embedding("it", {}), number))
    one, other = (Path(file).read_bytes() for file, _ in previews.shown())
    assert one != other
