"""The example workflows opened in ComfyUI's own page, in a headless Chromium: fields are filled in, Run is pressed.

Needs the package playwright, and Chromium on the PATH or at TI_TRAIN_CHROMIUM.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
FILLED_IN = """values => {
    for (const node of window.app.graph._nodes)
        for (const widget of node.widgets ?? [])
            if (widget.name in values && (widget.name !== "steps" || node.type.startsWith("TITrain_")))
                widget.value = values[widget.name];
}"""
SHOWN = "() => window.app.graph._nodes.filter(n => n.imgs?.length).map(n => [n.type, n.imgs.length])"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    chromium = os.environ.get("TI_TRAIN_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("TI_TRAIN_CHROMIUM is not set, and there is no chromium on the PATH")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def page(front_end, server, browser) -> Iterator[Any]:
    """ComfyUI's page, past its tutorial; `page.said` are the errors of its console."""
    opened = browser.new_page(viewport={"width": 1600, "height": 1000})
    opened.said = []
    opened.on("console", lambda m: opened.said.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.request.post(f"{server.url}/api/settings", data={"Comfy.TutorialCompleted": True})
    opened.goto(server.url)
    opened.wait_for_function("() => window.app?.graph && window.app.extensionManager", timeout=300_000)
    yield opened
    opened.close()


def run(page: Any, server: Any, workflow: str, screenshot: Path, **values: Any) -> dict[str, Any]:
    """Opens a workflow's file as the menu's Open does, fills in widgets by name, presses Run; the outputs."""
    page.locator("#comfy-file-input").set_input_files(str(ROOT / "example_workflows" / f"{workflow}.json"))
    page.wait_for_function("() => window.app.graph._nodes.some(n => n.type === 'TITrain_TrainEmbedding')")
    page.evaluate(FILLED_IN, values)
    before = set(server.get("/history"))
    page.locator('[data-testid="queue-button"]').first.click()
    deadline = time.monotonic() + 600
    while not (new := set(server.get("/history")) - before):
        assert time.monotonic() < deadline, server.said()[-2000:]
        page.wait_for_timeout(500)
    page.wait_for_function(f"() => ({SHOWN})().length > 2", timeout=60_000)
    page.screenshot(path=screenshot)
    history = server.get(f"/history/{(prompt := new.pop())}")[prompt]
    assert history["status"]["status_str"] == "success", history["status"]
    return history["outputs"]


SETTINGS = {"ckpt_name": "sd1.safetensors", "folder": "toys", "initial_text": "toy", "width": 64, "height": 64}


def test_quick_start(page, server, tmp_path):
    outputs = run(page, server, "Quick start", tmp_path / "page.png", name="from-the-page", steps=3, **SETTINGS)
    assert (server.base / "models" / "embeddings" / "from-the-page.safetensors").is_file()
    assert len(outputs["10"]["images"]) == 2
    assert len(outputs["3"]["images"]) == 2, "previews of the untrained word and of the last step"
    shown = dict(page.evaluate(SHOWN))
    assert shown["TITrain_TrainEmbedding"] >= 1
    assert shown["PreviewImage"] == 1, "the plot of the loss"
    assert shown["SaveImage"] == 2
    assert not [text for text in page.said if "ti-train" in text or "TITrain" in text]


def test_compare_with_and_without_the_word(page, server, tmp_path):
    outputs = run(
        page, server, "Compare with and without the word", tmp_path / "page.png", name="compared", steps=3, **SETTINGS
    )
    word, plain = (server.files(outputs, node)[0].read_bytes() for node in ("10", "15"))
    assert word != plain
