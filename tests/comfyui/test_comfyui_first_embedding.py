"""From an empty ComfyUI to the first embedding by mouse and keyboard: at most eight clicks, a minute of reading."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from page import EXAMPLES, Page
from PIL import Image, ImageDraw

from ti_train.formats import load_embedding

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
MOST_CLICKS = 8
READ = 200  # words a minute, of plain text
WIDGET = """([kind, name]) => {
    const { graph, canvas } = window.app;
    const node = graph.nodes.find((n) => n.type === kind);
    const widget = node.widgets.find((w) => w.name === name);
    const box = canvas.canvas.getBoundingClientRect(), { scale, offset } = canvas.ds;
    const place = [node.pos[0] + node.size[0] * 0.6, node.pos[1] + (widget.last_y ?? widget.y) + 10];
    return [0, 1].map((i) => (place[i] + offset[i]) * scale + [box.left, box.top][i]);
}"""

OVERLAPS = """() => {
    const boxes = window.app.graph.nodes.map((node) => [node.title, ...node.getBounding()]);
    const over = ([, x, y, width, height], [, left, top, across, down]) =>
        x < left + across && left < x + width && y < top + down && top < y + height;
    const pairs = boxes.flatMap((one, i) => boxes.slice(i + 1).map((other) => [one, other]));
    return pairs.filter(([one, other]) => over(one, other)).map(([one, other]) => [one[0], other[0]]);
}"""


class Hand:
    """A user's hand on the mouse and the keyboard; it counts the clicks."""

    def __init__(self, page: Page) -> None:
        self.page, self.tab, self.clicks = page, page.tab, 0

    def click(self, what: Any) -> None:
        what.click(timeout=30_000)
        self.clicks += 1

    def click_widget(self, kind: str, name: str) -> None:
        self.tab.mouse.click(*self.tab.evaluate(WIDGET, [kind, name]))
        self.clicks += 1

    def write(self, text: str) -> None:
        self.tab.keyboard.press("Control+a")
        self.tab.keyboard.type(text)
        self.tab.keyboard.press("Enter")


@pytest.fixture
def hand(browser, server, request) -> Iterator[Hand]:
    """TI_TRAIN_RECORDINGS: a folder in which each test leaves its recording, a trace of Playwright."""
    opened = Page(browser, server, **{"Comfy.VueNodes.Enabled": False})
    recordings = os.environ.get("TI_TRAIN_RECORDINGS")
    if recordings:
        opened.context.tracing.start(screenshots=True, snapshots=True)
    yield Hand(opened)
    if recordings:
        version = server.get("/system_stats")["system"]["comfyui_version"]
        opened.context.tracing.stop(path=Path(recordings) / f"{request.node.name} in ComfyUI {version}.zip")
    opened.close()


@pytest.fixture
def template_browser(server) -> None:
    """Front end 1.27 opens no template of any pack if it has none of the host's own."""
    try:
        server.get("/templates/index.json")
    except HTTPError:
        pytest.skip("ComfyUI's Python lacks comfyui-workflow-templates, which is in ComfyUI's requirements.txt")


@pytest.fixture
def photographs(tmp_path) -> list[Path]:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        picture = Image.new("RGB", (64, 64), (230, 230 - 20 * number, 220))
        ImageDraw.Draw(picture).ellipse([8 + 4 * number, 8, 48, 48], fill=(40, 60, 200))
        picture.save(file)
    return files


def test_the_first_embedding_takes_at_most_eight_clicks(hand, server, template_browser, photographs):
    tab = hand.tab
    hand.click(tab.locator(".templates-tab-button"))
    hand.click(tab.locator("[role=dialog]").get_by_text("ti-train", exact=True).first)
    hand.click(tab.get_by_test_id("template-workflow-Quick start"))
    tab.wait_for_function("window.app.graph.nodes.some((n) => n.type === 'TITrain_TrainEmbedding')")
    tab.wait_for_timeout(2000)  # the page moves to the workflow
    hand.click_widget("CheckpointLoaderSimple", "ckpt_name")
    hand.click(tab.locator(".litecontextmenu").get_by_text("sd1.safetensors"))
    hand.click_widget("TITrain_TrainEmbedding", "name")
    hand.write("first-toy")
    with tab.expect_file_chooser() as chooser:
        hand.click(tab.get_by_role("button", name="Add images"))
    chooser.value.set_files(photographs)
    tab.locator(".ti-train-pictures [role=listitem]").nth(2).wait_for()
    hand.click(tab.get_by_test_id("queue-button"))
    tab.get_by_text(re.compile("first-toy: Trained")).first.wait_for(timeout=1_800_000)
    server.interrupt()  # the sampling that follows takes longer on a CPU
    assert hand.clicks <= MOST_CLICKS
    assert len(list((server.base / "input" / "first-toy").glob("*.png"))) == 3, "the folder has the embedding's name"
    embedding = load_embedding(server.base / "models" / "embeddings" / "first-toy.safetensors")
    assert embedding.provenance["step"] == "120"
    hand.page.wait_until_idle()


def test_the_readme_says_how_in_a_minute():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (how,) = re.findall(r"\*\*In ComfyUI\*\* open the template.*?(?=\n\n)", text, re.DOTALL)
    assert len(how.split()) < READ


def test_one_name_fills_the_folder_and_the_prefix_of_the_images(hand, server, photographs):
    page, tab = hand.page, hand.tab
    page.load("Quick start")
    page.set("CheckpointLoaderSimple", ckpt_name="sd1.safetensors")
    page.set("TITrain_TrainEmbedding", name="second-toy", steps=1, preview_every=0)
    page.set("EmptyLatentImage", width=64, height=64, batch_size=1)
    page.set("KSampler", steps=1)
    tab.locator(".ti-train-picker input[type=file]").first.set_input_files(photographs)
    tab.locator(".ti-train-pictures [role=listitem]").nth(2).wait_for()
    page.run()
    page.wait_until_idle()
    assert list((server.base / "output").glob("second-toy_*.png"))
    assert len(list((server.base / "input" / "second-toy").glob("*.png"))) == 3

    hand.click(tab.get_by_role("button", name="New folder"))
    tab.locator(".ti-train-picker input[type=file]").first.set_input_files(photographs[:1])
    tab.locator(".ti-train-picker .ti-train-status").get_by_text("1 images").wait_for()
    assert len(list((server.base / "input" / "second-toy").glob("*.png"))) == 3, "the first set is as it was"
    assert len(list((server.base / "input" / "second-toy-2").glob("*.png"))) == 1


def test_the_steps_are_the_presets_and_not_0(hand):
    page, tab = hand.page, hand.tab
    shown = """() => window.app.graph.nodes.find((n) => n.type === 'TITrain_TrainEmbedding').widgets
        .filter((w) => ['steps', 'learning_rate'].includes(w.name)).map((w) => w.value)"""
    page.load("Quick start")
    assert tab.evaluate(shown) == [120, 0.01]
    page.set("TITrain_TrainEmbedding", preset="Style")
    assert tab.evaluate(shown) == [500, 0.005]
    page.set("TITrain_TrainEmbedding", steps=7)
    page.set("TITrain_TrainEmbedding", preset="Paper")
    assert tab.evaluate(shown) == [7, 0.005], "what a user has entered stays"
    page.load("Style")
    assert tab.evaluate(shown) == [500, 0.005]


def test_a_folder_that_is_still_to_be_filled_says_what_to_do(hand, server):
    head = hand.tab.locator(".ti-train-picker .ti-train-status")
    hand.page.load("Quick start")
    head.get_by_text("Drop 3 to 5 images here: a new folder is made for them.").wait_for()
    hand.page.set("TITrain_LoadTrainingImages", folder="still-to-come")
    head.get_by_text("'still-to-come' has no images yet. Drop 3 to 5 of them here.").wait_for()


@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.json")))
def test_a_template_opens_at_a_size_at_which_it_can_be_read(hand, example):
    """The classic page draws no text below 0.57, its older version below 0.6. No node lies over another."""
    hand.tab.set_viewport_size({"width": 1366, "height": 768})
    hand.page.load(example)
    hand.tab.wait_for_timeout(1500)
    assert hand.tab.evaluate("window.app.canvas.ds.scale") > 0.6
    assert hand.tab.evaluate(OVERLAPS) == []
