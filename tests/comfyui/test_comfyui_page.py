"""The example workflows, the live panel and the pictures in ComfyUI's own page.

Playwright and a Chromium: TI_TRAIN_CHROMIUM, or one on the PATH. COMFYUI_FRONT_END: the folder of the page's
index.html, where it is not the comfyui_frontend_package of ComfyUI's Python.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import workflows as w
from page import CARDS, PANEL, Page
from PIL import Image

pytestmark = pytest.mark.slow


def fill_in(page: Page, **settings: Any) -> None:
    """What a user chooses: model, pictures and name; and few steps of a small picture, for the sake of time."""
    page.set("CheckpointLoaderSimple", ckpt_name="sd1.safetensors")
    page.set("TITrain_LoadTrainingImages", folder="toys")
    small = {"name": "my-toy", "initial_text": "toy", "steps": 4, "preview_every": 2}
    page.set("TITrain_TrainEmbedding", **small | settings)
    page.set("EmptyLatentImage", width=64, height=64, batch_size=1)
    page.set("KSampler", steps=2)


EXAMPLES = {"Quick start": 1, "Compare with and without the embedding": 2, "Two embeddings in one image": 1, "Style": 1}


@pytest.mark.parametrize(("example", "saved"), EXAMPLES.items())
def test_an_example_runs_from_the_page(page, server, example, saved):
    opened = page()
    opened.load(example)
    fill_in(opened, name=example.split()[0].lower())
    opened.run()
    opened.wait_until_idle()
    nodes = opened.ids_of("SaveImage")
    assert len(nodes) == saved
    for node in nodes:
        opened.wait_for(lambda node=node: opened.pictures_of(node))
    assert Path(server.base / "models" / "embeddings" / f"{example.split()[0].lower()}.safetensors").is_file()


@pytest.mark.parametrize("example", ["Stable Diffusion XL", "Flux", "Z-Image"])
def test_an_example_of_a_family_opens_without_an_unknown_node(page, example):
    opened = page()
    opened.load(example)
    types = "(window.app.rootGraph ?? window.app.graph)._nodes.map(node => node.type)"
    there = opened.tab.evaluate(types)
    assert {"TITrain_TrainEmbedding", "KSampler"} <= set(there)
    known = opened.tab.evaluate("Object.keys(window.LiteGraph.registered_node_types)")
    assert set(there) <= set(known)


def test_a_run_that_is_continued_is_shown_again(page):
    """It has the id of the interrupted run, which is older than the runs in between."""
    opened = page()
    opened.load("Quick start")
    status = opened.tab.locator(PANEL).locator(".ti-train-status")
    for run, state in (("first", "cancelled"), ("second", "done"), ("first", "running")):
        opened.show_run(id=run, name=run, status=state)
        assert status.inner_text().startswith(f"{run}: ")
    for number in range(7):  # eight are kept
        opened.show_run(id=f"other-{number}", node="99")
    opened.send("progress", run="first", step=7, loss=[0, [[1, 0.5]]], evaluations=[0, []])
    assert "step 7" in status.inner_text()


@pytest.fixture
def photographs(tmp_path) -> list[Path]:
    """Two pictures, a copy of one, and a caption."""
    files = [tmp_path / name for name in ("one.png", "two.png", "copy.png", "two.txt")]
    for file, colour in zip(files, ("navy", "teal", "navy"), strict=False):
        Image.new("RGB", (96, 64), colour).save(file)
    files[3].write_text("a teal toy", encoding="utf-8")
    return files


def test_pictures_are_picked_a_run_is_watched_and_the_word_used(page, server, photographs):
    first = page()
    first.load("Quick start")
    fill_in(first, name="watched", preset="Paper", steps=400, preview_every=5)
    first.set("TITrain_LoadTrainingImages", folder="")
    first.tab.locator(".ti-train-picker input[type=file]").first.set_input_files(photographs)
    cards = first.tab.locator(CARDS)
    cards.nth(2).wait_for()
    assert [field.input_value() for field in cards.locator("textarea").all()] == ["", "", "a teal toy"]
    assert "Identical to copy.png" in cards.nth(1).inner_text()
    cards.nth(0).locator("textarea").fill("a navy toy")
    cards.nth(0).locator("textarea").blur()
    folder = first.tab.evaluate("window.app.graph.findNodesByType('TITrain_LoadTrainingImages')[0].widgets[0].value")
    first.wait_for(lambda: (server.base / "input" / folder / "copy.txt").is_file())
    assert (server.base / "input" / folder / "copy.txt").read_text(encoding="utf-8") == "a navy toy"

    first.run()
    previews = first.tab.locator(".ti-train-strip [role=listitem]")
    previews.nth(1).wait_for(timeout=300_000)
    assert previews.nth(0).inner_text() == "untrained"
    earlier = first.tab.locator(".ti-train-chart path.noisy").get_attribute("d")
    first.wait_for(lambda: len(first.tab.locator(".ti-train-chart path.noisy").get_attribute("d")) > len(earlier))
    previews.nth(0).locator("button").click()
    first.tab.locator("dialog.ti-train-enlarged img").wait_for()
    first.tab.keyboard.press("Escape")

    assert first.tab.evaluate("window.app.graph.getNodeById(3).size[1]") < 1000, "the node grew only for the panel"

    first.open()  # reloads the page
    previews.nth(1).wait_for()
    assert first.tab.locator(".ti-train-chart path.noisy").get_attribute("d").count("L") > 3
    second = page()  # with another workflow, or on another device
    tab = second.tab.locator(".ti-train-tab-button")
    second.wait_for(lambda: re.search(r"\d+%", tab.inner_text()))
    tab.click()
    aside = second.tab.locator(".ti-train-sidebar")
    assert re.search(r"watched: step \d+ of 400", aside.inner_text())
    assert aside.locator(".ti-train-strip [role=listitem]").count() > 1
    aside.get_by_role("button", name="Stop and keep").click()
    first.wait_until_idle()
    second.wait_for(lambda: "Stopped and kept" in aside.inner_text())
    assert "%" not in tab.inner_text()
    shown = "window.app.graph.getNodeById(3).widgets.filter((w) => w.name === '$$node-text-preview').length"
    assert first.tab.evaluate(shown) == 1, "the panel is in the place of the progress text"

    status = first.tab.locator(PANEL).locator(".ti-train-status")
    first.wait_for(lambda: "Stopped and kept" in status.inner_text())
    assert (server.base / "models" / "embeddings" / "watched.safetensors").is_file()
    offered = "window.app.graph.add(LiteGraph.createNode('TITrain_LoadEmbedding')).widgets[0].options.values"
    assert "watched.safetensors" in first.tab.evaluate(offered)
    saved = first.ids_of("SaveImage")[0]
    first.wait_for(lambda: first.pictures_of(saved))  # the rest of the graph ran on with the embedding

    first.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first.tab.get_by_role("button", name="Copy prompt").click()
    copied = first.tab.evaluate("navigator.clipboard.readText()")
    assert copied == "a photo of embedding:watched"
    first.set("CLIPTextEncode", text=copied)
    before = first.pictures_of(saved)
    first.run()
    first.wait_for(lambda: first.pictures_of(saved) not in ([], before))
    assert not first.problems()


def test_events_of_nodes_that_are_gone_and_names_with_html(page):
    """A run whose node is on no page is left alone; whatever a run says is shown as text."""
    opened = page()
    opened.load("Quick start")
    tab = opened.tab
    panel = tab.locator(PANEL)
    idle = panel.inner_text()
    for changes in ({"id": "gone", "node": "99"}, {"id": "anothers", "prompt_id": "another"}, {"prompt_id": None}):
        opened.show_run(**changes)
    opened.send("progress", run="gone", step=1, loss=[0, [[1, 0.5]]], evaluations=[0, []])
    assert panel.inner_text() == idle
    opened.show_run(name="<img src=x onerror=window.parsed=1>", warnings=["<b>bold</b>"])
    assert "<img src=x" in panel.inner_text()
    assert "<b>bold</b>" in panel.inner_text()
    assert panel.locator("img, b").count() == 0  # no preview yet
    tab.locator(".ti-train-tab-button").click()
    assert "<b>bold</b>" in tab.locator(".ti-train-sidebar").inner_text()
    for start in range(0, 10_000, 100):
        loss = [[step, 0.5 + step % 7 / 100] for step in range(start, start + 100, 50)]
        opened.send(
            "progress", run="x", step=start, loss=[start // 50, loss], evaluations=[start // 100, [[start, 0.4]]]
        )
    assert panel.locator("path.noisy").get_attribute("d").count("L") == 199
    assert "99%" in tab.locator(".ti-train-tab-button").inner_text()
    for number in range(60):
        odd = {"run": "x", "number": number, "step": 10 * number, "prompt": "a *", "width": 8, "height": 700}
        opened.send("preview", **odd, kept=list(range(max(0, number - 23), number + 1)))
    shown = panel.locator(".ti-train-strip [role=listitem]")
    assert shown.count() == 24
    assert (shown.first.inner_text(), shown.last.inner_text()) == ("step 360", "step 590")
    assert panel.locator(".ti-train-strip").bounding_box()["height"] < 120
    assert not tab.evaluate("window.parsed")
    tab.evaluate("window.app.graph.remove(window.app.graph.getNodeById(3))")
    opened.send("progress", run="x", step=9_999, loss=[200, []], evaluations=[100, []])
    assert panel.count() == 0
    assert not opened.problems()


def test_the_keyboard_alone_reaches_everything(page):
    opened = page()
    opened.load("Quick start")
    tab, panel = opened.tab, opened.tab.locator(PANEL)
    previews = [{"number": n, "step": n, "prompt": "a *", "width": 8, "height": 8} for n in range(2)]
    points = [[step, 1 / (1 + step)] for step in range(0, 5000, 500)]
    opened.show_run(step=5000, previews=previews, loss=points, evaluations=points)
    panel.locator("svg").focus()
    tab.keyboard.press("ArrowLeft")
    lines = panel.locator(".reading tspan").all_text_contents()
    assert lines == ["validation, step 4500: 0.0002222", "training (smoothed), step 4500: 0.0002222"]
    tab.keyboard.press("Tab")
    assert "solid" in tab.evaluate("getComputedStyle(document.activeElement).outline")
    tab.keyboard.press("Enter")
    tab.locator("dialog.ti-train-enlarged").wait_for()
    tab.keyboard.press("Escape")
    reached = []
    for _ in range(3):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.innerText"))
    assert reached == ["step 1", "Stop and keep", "Cancel"]


def test_a_server_that_restarts_in_mid_run_is_told_and_found_again(page, server):
    opened = page()
    opened.load("Quick start")
    fill_in(opened, name="torn", preset="Paper", steps=2000, preview_every=0)
    opened.run()
    status = opened.tab.locator(PANEL).locator(".ti-train-status")
    opened.wait_for(lambda: re.search("torn: step [1-9]", status.inner_text()), 300)
    server.stop()
    try:
        opened.wait_for(lambda: "no connection to the server; reconnecting" in status.inner_text(), 180)
        assert opened.tab.get_by_role("button", name="Stop and keep").is_disabled()
    finally:
        server.start()  # for the tests that follow, too
    opened.wait_for(lambda: "The server has restarted" in status.inner_text())
    fill_in(opened, name="torn", preset="Paper", steps=3, preview_every=0, if_exists="replace")
    opened.run()
    opened.wait_until_idle()
    opened.wait_for(lambda: "torn: Trained (step 3 of 3)" in status.inner_text())


def drop(page: Page, path: Path, onto: str) -> None:
    """As a file manager does, so that the page is given real directory entries."""
    box = page.tab.locator(onto).bounding_box()
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 10}
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page.tab)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data} | where)


def test_a_folder_is_dropped_seen_as_training_sees_it_and_a_picture_removed(page, server, tmp_path):
    """Captions and masks follow their picture: when its name was taken, and when it is removed."""
    dropped = tmp_path / "my-pictures"
    pictures = {
        "one.png": "navy",
        "two.png": "teal",
        "inner/one.png": "red",
        "masks/one.png": "white",
        "removed/old.png": "pink",
    }
    for name, colour in pictures.items():
        (dropped / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (160, 120), colour).save(dropped / name)
    (dropped / "one.txt").write_text("a navy one", encoding="utf-8")
    (dropped / "inner" / "one.txt").write_text("a red one", encoding="utf-8")
    table = [{"file_name": "two.png", "text": "a teal one"}, {"file_name": "one.png", "text": "from the table"}]
    (dropped / "metadata.jsonl").write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
    (dropped / "notes.md").write_text("of the photographer", encoding="utf-8")
    opened = page()
    opened.load("Quick start")
    opened.set("TITrain_LoadTrainingImages", folder="")
    drop(opened, dropped, ".ti-train-picker")
    cards = opened.tab.locator(CARDS)
    cards.nth(2).wait_for()
    folder = server.base / "input" / "my-pictures"

    def files() -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") if path.suffix == ".txt" else ""
            for path in folder.rglob("*.*")
        }

    assert files() == {
        "one.png": "", "one.txt": "a navy one", "masks/one.png": "", "two.png": "", "two.txt": "a teal one",
        "one (1).png": "", "one (1).txt": "a red one",
    }  # fmt: skip
    assert cards.nth(2).locator("textarea").input_value() == "a teal one"
    assert opened.tab.get_by_text("Not used: my-pictures/notes.md.").count()
    head = opened.tab.locator(".ti-train-picker .ti-train-status")
    assert head.inner_text() == "3 images, trained at the model's own resolution"
    frame = cards.nth(0).locator(".ti-train-crop")
    assert "width: 75%" not in frame.get_attribute("style")
    opened.set("TITrain_TrainEmbedding", preset="Paper")
    opened.wait_for(lambda: "left: 12.5%; top: 0%; width: 75%" in frame.get_attribute("style"))
    opened.tab.evaluate(
        """() => {
            const [train] = window.app.graph.findNodesByType("TITrain_TrainEmbedding");
            const options = window.LiteGraph.createNode("TITrain_TrainingOptions");
            window.app.graph.add(options);
            options.connect(0, train, train.findInputSlot("options"));
        }"""
    )
    opened.set("TITrain_TrainingOptions", crop="keep proportions", resolution=96)
    opened.wait_for(lambda: head.inner_text() == "3 images, trained at 96 x 96")
    assert "width: 75%" not in frame.get_attribute("style")

    remove = opened.tab.get_by_role("button", name="Remove one.png", exact=True)
    assert "Nothing is deleted" in remove.get_attribute("title")
    remove.focus()
    opened.tab.keyboard.press("Enter")
    opened.wait_for(lambda: cards.count() == 2)
    assert opened.tab.evaluate("document.activeElement.ariaLabel") == "Remove two.png"
    assert {name for name in files() if "removed" in name} == {
        f"removed/{n}" for n in ("one.png", "one.txt", "masks/one.png")
    }


def test_the_panel_speaks_chinese(page, server):
    opened = page(**{"Comfy.Locale": "zh"})
    server.post("/api/settings", {"Comfy.Locale": "en"})  # for the pages after this one
    opened.load("Quick start")
    assert opened.tab.get_by_role("button", name="添加图片").count() == 1
    opened.show_run(step=7)
    panel = opened.tab.locator(PANEL)
    assert "第 7 步" in panel.inner_text()
    assert panel.get_by_role("button", name="停止并保留").count() == 1
    opened.show_run(step=7, status="cancelled")
    assert "已取消" in panel.inner_text()


def test_the_pack_adds_no_error_and_no_warning_to_the_console(page):
    """Whatever the front end says of itself, it says without the pack's scripts too."""
    said = []
    for without in (True, False):
        opened = page(without_pack=without)
        opened.load("Quick start")
        opened.tab.wait_for_timeout(1000)
        assert opened.tab.locator(".ti-train-panel").count() == (0 if without else 2)
        said.append(set(opened.said))
    assert said[1] - said[0] == set()


LISTEN = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    window.texts = [], window.pictures = [], window.steps = [];
    socket.onopen = resolve;
    socket.onmessage = ({ data }) => {
        if (typeof data === "string") {
            const { type, data: detail } = JSON.parse(data);
            if (type === "progress") window.steps.push(detail.value);
            return;
        }
        const view = new DataView(data), text = (...part) => new TextDecoder().decode(data.slice(...part));
        const ends = 8 + view.getUint32(4);
        if (view.getUint32(0) === 1) window.pictures.push(new Blob([data.slice(8)], { type: "image/jpeg" }));
        if (view.getUint32(0) === 3) window.texts.push([text(8, ends), text(ends)]);
    };
})"""
SIZES = (
    "Promise.all(window.pictures.map((p) => createImageBitmap(p))).then((all) => all.map((p) => [p.width, p.height]))"
)


def test_a_client_that_does_not_know_the_pack_gets_what_samplers_give(browser, server):
    """Progress, previews as pictures, and the node's text, over ComfyUI's own websocket; nobody else gets them."""
    tabs = {name: browser.new_page() for name in ("asking", "other")}
    for name, tab in tabs.items():
        tab.goto(f"{server.url}/system_stats")
        tab.evaluate(LISTEN, f"{server.url.replace('http', 'ws')}/ws?clientId={name}")
    training = w.training(name="heard", steps=4, preview_every=2)
    prompt = server.post("/prompt", {"prompt": training, "client_id": "asking"})["prompt_id"]
    assert server.wait(prompt)["status"]["status_str"] == "success"
    tab = tabs["asking"]
    tab.wait_for_function("window.texts.length && window.steps.at(-1) === 4")
    assert tab.evaluate(SIZES) == [[512, 512]] * 3  # ComfyUI's --preview-size; before the first step, after two, four
    node, text = tab.evaluate("window.texts.at(-1)")
    assert node == "train"
    assert re.fullmatch(r"step 4 of 4 · loss \d\.\d{3,4} · \d+\.\d\d steps/s · 0:00:00 left", text)
    assert tabs["other"].evaluate("[window.pictures.length, window.texts.length]") == [0, 0]
    for tab in tabs.values():
        tab.close()
