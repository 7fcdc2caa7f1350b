"""What the tests of the tab do in its page."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from webui_server import Server

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the tab is driven with Playwright: pip install playwright"
)
expect = sync_api.expect
RUNS_WITHIN = 300_000  # milliseconds
RELOADS_WITHIN = 180  # seconds


def new_page(browser: Any, server: Server) -> Any:
    """A page in the tab."""
    page = browser.new_page(viewport={"width": 1400, "height": 1250})
    page.set_default_timeout(120_000)
    entered(page, server)
    return page


def entered(page: Any, server: Server) -> None:
    """Opens the tab anew."""
    page.goto(server.url + "/?__theme=light")
    chosen_tab(page, "TI Train")
    page.locator("#ti_train_start").wait_for()


def chosen_tab(page: Any, name: str) -> None:
    page.locator("#tabs > .tab-nav > button", has_text=name).click()


def fill(page: Any, field: str, value: str) -> None:
    box = page.locator(f"#ti_train_{field} input, #ti_train_{field} textarea").first
    box.fill(value)
    box.press("Tab")


def summary(page: Any) -> Any:
    return page.locator("#ti_train_summary").first  # gradio gives a block and its content one id


def says(page: Any, text: str) -> None:
    expect(summary(page)).to_contain_text(re.compile(text), timeout=RUNS_WITHIN)


def beside(page: Any, text: str) -> None:
    """What the tab says below the pictures."""
    expect(page.locator("#ti_train_pictures_note").first).to_contain_text(text)


def shot(page: Any, server: Server, name: str) -> None:
    """Into WEBUI_SHOTS, for people to look at."""
    folder = os.environ.get("WEBUI_SHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{server.kind}-{name}.png")


def chosen(page: Any, field: str, value: str) -> None:
    """Writes into a dropdown that takes what is not in its list too."""
    box = page.locator(f"#ti_train_{field} input").first
    box.fill(value)
    box.press("Enter")


def upload(page: Any, files: list[str]) -> None:
    expect(page.locator("#ti_train_upload:not(.ti-train-uploading)")).to_be_attached()
    field = page.locator("#ti_train_upload input[type=file]")
    field.evaluate("field => { field.value = ''; }")  # as a click does: else the same file again is no change
    field.set_input_files(files)


def opened(page: Any, accordion: str) -> None:
    page.locator("#tab_ti_train .label-wrap", has_text=accordion).click()


def reload_ui(page: Any, server: Server) -> None:
    """Presses "Reload UI" on the settings page, and waits for the UI to start again."""
    before = server.said().count("Startup time:")
    chosen_tab(page, "Settings")
    page.locator("#settings_restart_gradio").click()
    deadline = time.monotonic() + RELOADS_WITHIN
    while server.said().count("Startup time:") == before:
        assert time.monotonic() < deadline, f"the UI does not come back:\n{server.said()[-2000:]}"
        time.sleep(0.5)
