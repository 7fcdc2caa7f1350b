"""The panels in ComfyUI's own page, in both of its renderers: undo, subgraphs, workflow tabs, wheel, side panel."""

from __future__ import annotations

from typing import Any

import pytest
from page import CARDS, PANEL, Page
from PIL import Image

pytestmark = pytest.mark.slow
PICKER = PANEL.replace(":not(.ti-train-picker)", ".ti-train-picker")
both_renderers = pytest.mark.parametrize("nodes_2", [False, True], ids=["classic", "Nodes 2.0"])
MOVE_A_NODE = """() => {
    const node = window.app.graph.findNodesByType("KSampler")[0];
    node.pos = [node.pos[0] + 40, node.pos[1]];
    const tracker = window.app.extensionManager.workflow.activeWorkflow.changeTracker;
    (tracker.captureCanvasState ?? tracker.checkState).call(tracker);
}"""
SELECT = "(kind) => window.app.canvas.selectItems(window.app.graph.findNodesByType(kind))"
COMMAND = "(id) => window.app.extensionManager.command.execute(id)"
VIEW = "[...window.app.canvas.ds.offset, window.app.canvas.ds.scale]"


def opened_with_pictures(page: Any, nodes_2: bool = False, **settings: Any) -> Page:
    opened: Page = page(**{"Comfy.VueNodes.Enabled": nodes_2}, **settings)
    if nodes_2 and opened.tab.evaluate("window.__COMFYUI_FRONTEND_VERSION__").startswith("1.27."):
        pytest.skip("Nodes 2.0 of front end 1.27 draws no elements of packs, and the host's own nodes over each other")
    opened.load("Quick start")
    opened.set("TITrain_LoadTrainingImages", folder="toys")
    opened.tab.locator(CARDS).nth(1).wait_for()
    return opened


@both_renderers
def test_the_panels_are_alive_after_undo(page, nodes_2):
    opened = opened_with_pictures(page, nodes_2)
    opened.tab.evaluate(MOVE_A_NODE)
    opened.tab.wait_for_timeout(500)
    opened.tab.keyboard.press("Control+z")
    opened.tab.wait_for_timeout(1500)
    opened.show_run(step=7)
    opened.wait_for(lambda: "step 7 of 10000" in opened.tab.locator(PANEL).inner_text())
    opened.set("TITrain_LoadTrainingImages", folder="")
    opened.wait_for(lambda: "Drop 3 to 5 images here" in opened.tab.locator(PICKER).inner_text())
    assert not opened.problems()


@both_renderers
def test_the_properties_panel_has_the_inputs_only(page, nodes_2):
    """It would show the panels' raw names, and set their width to its own."""
    opened = opened_with_pictures(page, nodes_2)
    toggle = opened.tab.get_by_role("button", name="Toggle properties panel")
    if toggle.count() == 0:
        pytest.skip("This front end has no properties panel")
    side = opened.tab.get_by_test_id("properties-panel")
    if not side.is_visible():  # the page remembers it
        toggle.first.click()
    for kind, has in (("TITrain_TrainEmbedding", "initial_text"), ("TITrain_LoadTrainingImages", "alpha_as_mask")):
        opened.tab.evaluate(SELECT, kind)
        side.get_by_text(has).wait_for()
        assert "$$node-text-preview" not in side.inner_text()
        assert "ti_train_pictures" not in side.inner_text()
        widths = (
            "(kind) => window.app.graph.findNodesByType(kind)[0].widgets.filter((w) => w.element).map((w) => w.width)"
        )
        assert not any(opened.tab.evaluate(widths, kind))


@both_renderers
def test_wheel_and_middle_button_move_the_canvas(page, nodes_2):
    """What can be scrolled itself is: as a text box does it, in Nodes 2.0 once it has the focus."""
    opened = opened_with_pictures(page, nodes_2)
    mouse = opened.tab.mouse
    for part in (PANEL, PICKER):
        box = opened.tab.locator(part).bounding_box()
        x, y = box["x"] + 20, box["y"] + 10
        left, top, scale = opened.tab.evaluate(VIEW)
        mouse.move(x, y)
        mouse.down(button="middle")
        mouse.move(x + 60, y + 30, steps=4)
        mouse.up(button="middle")
        opened.tab.wait_for_timeout(300)
        moved = opened.tab.evaluate(VIEW)
        assert [moved[0] - left, moved[1] - top] == pytest.approx([60 / scale, 30 / scale], abs=3)
        mouse.move(x + 60, y + 30)
        mouse.wheel(0, -240)
        opened.wait_for(lambda before=scale: opened.tab.evaluate(VIEW)[2] > before)


def test_a_run_is_shown_in_the_workflow_that_has_queued_it(page):
    """Every copy of a template has the template's id, so that only the prompt tells them apart."""
    opened = page()
    opened.load("Quick start")
    opened.show_run(step=7)
    panel = opened.tab.locator(PANEL)
    assert "step 7 of" in panel.inner_text()
    opened.tab.evaluate(COMMAND, "Comfy.NewBlankWorkflow")
    opened.load("Quick start")
    opened.wait_for(lambda: "Press Run" in panel.inner_text())
    opened.send("progress", run="x", step=8, loss=[0, []], evaluations=[0, []])
    assert "Press Run" in panel.inner_text()
    opened.tab.locator(".workflow-tabs").get_by_text("Quick start", exact=True).first.click()
    opened.wait_for(lambda: "step 8 of" in panel.inner_text())
    opened.tab.locator(".ti-train-tab-button").click()
    assert "step 8 of" in opened.tab.locator(".ti-train-sidebar").inner_text()


@both_renderers
def test_subgraphs_and_workflow_tabs_leave_nothing_behind(page, nodes_2):
    opened = opened_with_pictures(page, nodes_2)
    asked: list[str] = []
    opened.tab.on("request", lambda request: asked.append(request.url) if "/ti_train/pictures" in request.url else None)
    for kind in ("TITrain_LoadTrainingImages", "TITrain_TrainEmbedding"):
        for _ in range(2):
            opened.load("Quick start")
            opened.tab.evaluate(SELECT, kind)
            opened.tab.evaluate(COMMAND, "Comfy.Graph.ConvertToSubgraph")
            opened.tab.wait_for_timeout(700)
            opened.tab.evaluate(COMMAND, "Comfy.NewBlankWorkflow")
            opened.tab.wait_for_timeout(500)
    opened.load("Quick start")
    opened.set("TITrain_LoadTrainingImages", folder="toys")
    opened.tab.wait_for_timeout(1000)
    asked.clear()
    opened.set("TITrain_TrainEmbedding", preset="Paper")
    opened.tab.wait_for_timeout(1000)
    assert len(asked) == 1, "the pictures of closed workflows are not fetched"
    assert not opened.problems()


def test_the_language_changes_without_a_reload(page):
    opened = opened_with_pictures(page)
    opened.tab.evaluate(MOVE_A_NODE)  # the page opens the workflow again as it was last changed
    opened.show_run(step=7, previews=[{"number": 0, "step": 0, "prompt": "a *", "width": 8, "height": 8}])
    panel, picker = opened.tab.locator(PANEL), opened.tab.locator(PICKER)
    assert "untrained" in panel.inner_text()
    try:
        opened.tab.evaluate("window.app.extensionManager.setting.set('Comfy.Locale', 'zh')")
        opened.wait_for(lambda: "未训练" in panel.inner_text() and "第 7 步" in panel.inner_text())
        assert panel.get_by_role("button", name="停止并保留").count() == 1
        opened.wait_for(lambda: picker.get_by_role("button", name="添加图片").count() == 1)
        opened.wait_for(lambda: picker.locator("textarea[placeholder=caption]").count() == 0)
    finally:
        opened.tab.evaluate("window.app.extensionManager.setting.set('Comfy.Locale', 'en')")
    opened.wait_for(lambda: "untrained" in panel.inner_text())


def test_the_chart_has_a_legend_and_reads_what_it_draws(page):
    opened = opened_with_pictures(page)
    loss = [[step, 0.5 - step / 20_000 + step % 3 / 100] for step in range(100, 10_000, 100)]
    measured = [[step, 0.3 - step / 50_000] for step in range(0, 10_000, 1000)]
    opened.show_run(step=9900, loss=loss, evaluations=measured, best=measured[-1])
    panel = opened.tab.locator(PANEL)
    assert panel.locator(".ti-train-legend").inner_text().split("\n") == [
        "validation loss (band: its error)", "training loss, smoothed (own scale)", "kept",
    ]  # fmt: skip
    box = panel.locator("svg").bounding_box()
    opened.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    lines = panel.locator(".reading tspan").all_text_contents()
    at = int(lines[1].split("step ")[1].split(":")[0])
    assert lines[1] == f"training (smoothed), step {at}: {dict(map(tuple, loss))[at]:#.4g}"
    dot = panel.locator(".dots circle.noisy")
    drawn = panel.locator("path.noisy").get_attribute("d")
    assert f"{float(dot.get_attribute('cx')):.1f},{float(dot.get_attribute('cy')):.1f}" in drawn


def test_the_strip_says_how_many_previews_are_not_seen(page):
    opened = page()
    opened.load("Quick start")
    previews = [{"number": 2 * n, "step": 20 * n, "prompt": "a *", "width": 8, "height": 8} for n in range(24)]
    opened.show_run(step=900, previews=previews[:2])
    hint = opened.tab.locator(PANEL).locator(".ti-train-previews > .ti-train-hint")
    opened.show_run(step=900, previews=previews)
    fit = "Math.floor(document.querySelector('.dom-widget .ti-train-strip').clientWidth / 72)"
    opened.wait_for(lambda: hint.inner_text().startswith("24 of 47 previews"))
    outside = int(hint.inner_text().split(" · ")[1].split()[0])
    assert abs(24 - outside - opened.tab.evaluate(fit)) <= 1
    opened.show_run(id="y", step=900, previews=[{**previews[0], "number": 0}])
    opened.wait_for(lambda: not hint.is_visible())


def test_all_of_five_pictures_are_seen_with_their_captions(page, server):
    folder = server.base / "input" / "five"
    folder.mkdir(exist_ok=True)
    for number, size in enumerate([(600, 480), (600, 540), (300, 200), (600, 660), (600, 720)]):
        Image.new("RGB", size, (40 * number, 90, 120)).save(folder / f"{number}.png")
    opened = page()
    opened.load("Quick start")
    opened.set("TITrain_LoadTrainingImages", folder="five")
    opened.tab.locator(CARDS).nth(4).wait_for()
    opened.tab.wait_for_timeout(1500)
    grid = opened.tab.locator(".ti-train-pictures")
    assert grid.evaluate("(grid) => grid.scrollHeight <= grid.clientHeight")


@both_renderers
def test_the_last_of_several_warnings_is_seen_whole(page, nodes_2):
    opened = opened_with_pictures(page, nodes_2)
    long = "The caption of IMG_0.png is not used: the preset's templates have no place for captions. Choose others. "
    opened.show_run(step=7, status="done", warnings=[f"{number}. {long * 2}" for number in range(3)])
    panel = opened.tab.locator(PANEL)
    last = panel.locator(".ti-train-warnings li").nth(2)
    opened.wait_for(lambda: panel.evaluate("(panel) => panel.scrollHeight <= panel.clientHeight"))
    assert panel.locator(".ti-train-warnings").evaluate("(list) => list.scrollHeight <= list.clientHeight")
    inner, outer = last.bounding_box(), panel.bounding_box()
    assert inner["y"] + inner["height"] <= outer["y"] + outer["height"] + 1
    button = panel.get_by_role("button", name="Copy prompt").bounding_box()
    assert inner["y"] + inner["height"] <= button["y"] + 1
