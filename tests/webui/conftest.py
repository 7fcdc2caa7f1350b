"""A WebUI for the tests. WEBUI_PATH: the folder of an AUTOMATIC1111, reForge or Forge; WEBUI_PYTHON: its Python.

WEBUI_BROWSER: the program of a Chromium, if Playwright shall not look for its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from webui_server import Server, clip_hub, drawn, start


@pytest.fixture(scope="session")
def webui() -> Path:
    path = os.environ.get("WEBUI_PATH")
    if not path:
        pytest.skip("WEBUI_PATH is not set: give the folder of an AUTOMATIC1111, reForge or Forge to test in it")
    if not (Path(path) / "webui.py").is_file():
        pytest.skip(f"WEBUI_PATH '{path}' is no WebUI: it has no webui.py")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def family(request) -> str:
    """Of the checkpoint that the WebUI loads; tests may be parametrized with it."""
    return getattr(request, "param", "sd1")


@pytest.fixture(scope="session")
def checkpoint(family) -> Path:
    return drawn(family)


@pytest.fixture(scope="session")
def hub() -> Path:
    pytest.importorskip("clip_files", reason="open_clip brings CLIP's vocabulary")
    return clip_hub()


@pytest.fixture(scope="session")
def server(webui, checkpoint, hub, tmp_path_factory) -> Iterator[Server]:
    running = start(webui, checkpoint, hub, tmp_path_factory.mktemp("webui"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tab_page import expect, sync_api

    with sync_api.sync_playwright() as playwright:
        program = os.environ.get("WEBUI_BROWSER")
        try:
            running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium starts; WEBUI_BROWSER can name one: {error}")
        expect.set_options(timeout=60_000)
        yield running
        running.close()


@pytest.fixture(scope="module")
def page(browser, server) -> Any:
    from tab_page import new_page

    return new_page(browser, server)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("drawings")
    files = []
    for name, colour in (("blue", (40, 60, 200)), ("red", (200, 40, 40))):
        picture = Image.new("RGB", (80, 64), (230, 230, 220))
        ImageDraw.Draw(picture).ellipse([12, 8, 52, 48], fill=colour)
        files.append(str(folder / f"{name}.png"))
        picture.save(files[-1])
    return files
