"""The example workflows in ComfyUI's own page.

Playwright and a Chromium: TI_TRAIN_CHROMIUM, or one on the PATH. COMFYUI_FRONT_END: the folder of the page's
index.html, where it is not the comfyui_frontend_package of ComfyUI's Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page import Page

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser, server) -> Iterator[Callable[..., Page]]:
    """Opens pages; all are closed after the test."""
    opened: list[Page] = []

    def page(**settings: Any) -> Page:
        opened.append(Page(browser, server, **settings))
        return opened[-1]

    yield page
    for one in opened:
        one.close()


def fill_in(page: Page, **settings: Any) -> None:
    """What a user chooses: model, pictures and name; and few steps of a small picture, for the sake of time."""
    page.set("CheckpointLoaderSimple", ckpt_name="tiny.safetensors")
    page.set("TITrain_LoadTrainingImages", folder="toys")
    small = {"name": "my-toy", "initial_text": "toy", "steps": 4, "preview_every": 2}
    page.set("TITrain_TrainEmbedding", **small | settings)
    page.set("EmptyLatentImage", width=64, height=64, batch_size=1)
    page.set("KSampler", steps=2)


@pytest.mark.parametrize(("example", "saved"), [("Quick start", [10]), ("Compare with and without the word", [10, 15])])
def test_an_example_runs_from_the_page(page, server, example, saved):
    opened = page()
    opened.load(example)
    fill_in(opened, name=example.split()[0].lower())
    opened.run()
    opened.wait_until_idle()
    for node in saved:
        assert opened.pictures_of(node), (server.said()[-2000:], opened.said)
    assert Path(server.base / "models" / "embeddings" / f"{example.split()[0].lower()}.safetensors").is_file()
