"""The sidebar in ComfyUI's own page: past runs, kept steps, the embeddings folder; and the desktop notification."""

from __future__ import annotations

import re

import pytest
import workflows as w

pytestmark = pytest.mark.slow
LOADED = "(images) => images.length && images.every((image) => image.naturalWidth > 0)"
RECORD_NOTIFICATIONS = """() => {
    window.shown = [];
    window.Notification = class {
        static permission = "granted";
        static requestPermission = async () => "granted";
        constructor(title, options) { window.shown.push([title, options.body]); }
    };
}"""


def test_a_past_run_is_looked_at_and_a_step_of_it_kept(page, server):
    server.run(w.training(name="looked-at", steps=4, preview_every=2))
    opened = page()
    opened.tab.locator(".ti-train-tab-button").click()
    aside = opened.tab.locator(".ti-train-library")
    aside.get_by_text("Past runs").click()
    row = aside.locator("details[role=listitem]").first
    assert "looked-at" in row.inner_text()
    row.locator("summary").first.click()
    previews = row.locator(".ti-train-strip img")
    previews.nth(2).wait_for()
    opened.wait_for(lambda: previews.evaluate_all(LOADED))
    assert max(previews.evaluate_all("(images) => images.map((image) => image.naturalWidth)")) <= 136
    assert "Trained (step 4 of 4)" in row.inner_text()
    assert "steps" in row.locator("> .ti-train-facts").inner_text()
    assert row.get_by_role("button", name="Stop and keep").count() == 0
    previews.nth(1).click()
    opened.tab.locator("dialog").get_by_role("button", name="Keep this step").click()
    opened.tab.get_by_text("Step 2 is saved as looked-at-step2").wait_for()
    assert (server.base / "models" / "embeddings" / "looked-at-step2.safetensors").is_file()
    opened.tab.keyboard.press("Escape")
    offered = "window.app.graph.add(LiteGraph.createNode('TITrain_LoadEmbedding')).widgets[0].options.values"
    opened.wait_for(lambda: "looked-at-step2.safetensors" in opened.tab.evaluate(offered))
    assert not opened.problems()


def test_embeddings_are_renamed_and_deleted_in_the_sidebar(page, server):
    server.run(w.training(name="named-so", steps=1))
    opened = page()
    opened.tab.locator(".ti-train-tab-button").click()
    aside = opened.tab.locator(".ti-train-library")
    aside.get_by_text("Embeddings", exact=True).click()
    aside.get_by_role("button", name="Rename named-so.safetensors").click()
    field = opened.tab.get_by_role("dialog").locator("input")
    field.fill("named-thus")
    field.press("Enter")
    delete = aside.get_by_role("button", name="Delete named-thus.safetensors")
    delete.wait_for()
    assert (server.base / "models" / "embeddings" / "named-thus.safetensors").is_file()
    delete.click()
    opened.tab.get_by_role("dialog").get_by_role("button", name=re.compile("Delete$")).click()
    opened.wait_for(lambda: delete.count() == 0)
    assert (server.base / "user" / "ti_train" / "removed" / "named-thus.safetensors").is_file()
    assert not opened.problems()


def test_a_desktop_notification_is_shown_only_if_it_is_asked_for(page):
    opened = page()
    opened.load("Quick start")
    opened.tab.evaluate(RECORD_NOTIFICATIONS)
    opened.show_run(step=9_999)
    opened.show_run(step=10_000, status="done")
    opened.tab.wait_for_timeout(500)
    assert opened.tab.evaluate("window.shown") == []
    setting = "(on) => window.app.extensionManager.setting.set('TITrain.DesktopNotification', on)"
    opened.tab.evaluate(setting, True)
    opened.show_run(id="y", step=10_000, status="done")
    opened.wait_for(lambda: opened.tab.evaluate("window.shown") == [["toy", "Trained · step 10000 of 10000"]])
    opened.tab.evaluate(setting, False)
