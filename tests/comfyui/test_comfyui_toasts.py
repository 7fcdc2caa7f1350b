"""What the page says when an embedding is trained, for a family in whose prompts ComfyUI reads no embedding:name."""

from __future__ import annotations

import pytest
from page import PANEL, Page

pytestmark = pytest.mark.slow
FAMILY = "auraflow"  # see tiny_families.py
# Load Training Images and Train Embedding of the template, with a tiny model in the place of its checkpoint
WITH_A_TINY_MODEL = """(family) => {
    const { graph } = window.app;
    const kept = ["TITrain_LoadTrainingImages", "TITrain_TrainEmbedding"];
    for (const node of [...graph.nodes].filter(({ type }) => !kept.includes(type))) graph.remove(node);
    const model = window.LiteGraph.createNode("ProbeFamily"), [train] = graph.findNodesByType("TITrain_TrainEmbedding");
    graph.add(model);
    model.widgets[0].value = family;
    ["model", "clip", "vae"].forEach((input, output) => model.connect(output, train, train.findInputSlot(input)));
}"""


@pytest.fixture
def trained(page, server) -> Page:
    opened: Page = page()
    opened.load("Quick start")
    opened.tab.evaluate(WITH_A_TINY_MODEL, FAMILY)
    opened.set("TITrain_LoadTrainingImages", folder="toys")
    settings = {"initial_text": "toy", "steps": 24, "preview_every": 12, "resolution": 64, "if_exists": "replace"}
    opened.set("TITrain_TrainEmbedding", name="my-aura", **settings)
    opened.run()
    opened.tab.locator(PANEL).get_by_role("button", name="Copy prompt").wait_for(timeout=300_000)
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return opened


def test_where_the_host_reads_no_name_the_page_says_load_embedding(trained):
    tab, toasts = trained.tab, trained.tab.locator(".p-toast-message")
    how = "Use it with Load Embedding: ComfyUI reads no embedding:my-aura for this model family."
    toasts.get_by_text(how).wait_for()
    assert "Use the clip output, or Load Embedding" in tab.locator(f"{PANEL} .ti-train-warnings").inner_text()

    tab.locator(PANEL).get_by_role("button", name="Copy prompt").press("Enter")
    toasts.get_by_text("a photo of * - for a CLIP Text Encode behind Load Embedding with my-aura").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == "a photo of *"

    tab.locator(f"{PANEL} .ti-train-strip").get_by_role("button", name="step 12").press("Enter")
    tab.get_by_role("button", name="Keep this step").click()
    toasts.get_by_text("Use it with Load Embedding: ComfyUI reads no embedding:my-aura-step12").wait_for()
    assert not trained.problems()
