"""The tab in a headless Chromium. WEBUI_BROWSER: its program, if Playwright shall not look for its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from webui_server import Server

pytestmark = pytest.mark.slow
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the tab is driven with Playwright: pip install playwright"
)
RUNS_WITHIN = 300_000  # milliseconds


@pytest.fixture(scope="module")
def page(server) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        program = os.environ.get("WEBUI_BROWSER")
        try:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium starts; WEBUI_BROWSER can name one: {error}")
        page = browser.new_page(viewport={"width": 1400, "height": 1250})
        page.set_default_timeout(120_000)
        page.goto(server.url + "/?__theme=light")
        page.locator("#tabs > .tab-nav > button", has_text="TI Train").click()
        page.locator("#ti_train_start").wait_for()
        yield page
        browser.close()


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


def fill(page: Any, field: str, value: str) -> None:
    box = page.locator(f"#ti_train_{field} input, #ti_train_{field} textarea").first
    box.fill(value)
    box.press("Tab")


def summary(page: Any) -> Any:
    return page.locator("#ti_train_summary").first  # gradio gives a block and its content one id


def says(page: Any, text: str) -> None:
    sync_api.expect(summary(page)).to_contain_text(re.compile(text), timeout=RUNS_WITHIN)


def shot(page: Any, server: Server, name: str) -> None:
    """Into WEBUI_SHOTS, for people to look at."""
    folder = os.environ.get("WEBUI_SHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{server.kind}-{name}.png")


def test_upload_train_and_use_the_word(page, server, drawings):
    unknown = server.picture("a photo of a tabtoy")
    fill(page, "name", "tabtoy")
    fill(page, "init", "toy")
    page.locator("#ti_train_upload input[type=file]").set_input_files(drawings)
    page.locator("#ti_train_thumbnails img").nth(1).wait_for()
    folder = server.base / "ti-train" / "pictures" / "tabtoy"
    assert {path.name for path in folder.iterdir()} == {"blue.png", "red.png"}

    page.locator("#tab_ti_train .label-wrap", has_text="More").click()
    for field, value in {"steps": "6", "batch_size": "1", "resolution": "64", "preview_every": "3"}.items():
        fill(page, field, value)
    page.locator("#ti_train_start").click()
    says(page, "is being learnt")
    bar = page.locator("#ti_train_bar .progressDiv")
    sync_api.expect(bar).to_contain_text("Learning 'tabtoy'", timeout=RUNS_WITHIN)
    shot(page, server, "running")
    says(page, r"is learnt.*Step 6 of 6")
    sync_api.expect(page.locator("#ti_train_previews img")).to_have_count(3)
    sync_api.expect(page.locator("#ti_train_chart svg .measured").first).to_be_visible()
    sync_api.expect(bar).to_have_count(0, timeout=30_000)
    shot(page, server, "learnt")
    assert server.picture("a photo of a tabtoy") != unknown


def test_interrupt_and_resume(page):
    fill(page, "name", "stopped")
    fill(page, "steps", "40")
    page.locator("#ti_train_start").click()
    says(page, "stopped.*Step [1-9]")
    page.locator("#ti_train_interrupt").click()
    says(page, "stopped was interrupted.*Resume goes on")
    fill(page, "preview_every", "0")
    page.locator("#ti_train_resume").click()
    says(page, "stopped is learnt.*Step 40 of 40")


def test_mistakes_are_told(page):
    fill(page, "name", "a/b")
    page.locator("#ti_train_start").click()
    says(page, "has a character that file names cannot have")


def test_embeddings(page, server):
    page.locator("#ti_train_tabs > .tab-nav > button", has_text="Embeddings").click()
    sync_api.expect(page.locator("#ti_train_word_table").first).to_contain_text("tabtoy")
    word = page.locator("#ti_train_word input").first
    word.fill("tabtoy")
    word.press("Enter")
    page.locator("#ti_train_tell").click()
    text = page.locator("#ti_train_word_text textarea")
    sync_api.expect(text).to_have_value(re.compile("nearest words: toy"), timeout=RUNS_WITHIN)
    shot(page, server, "words")
