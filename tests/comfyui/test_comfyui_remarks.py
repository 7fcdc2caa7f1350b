"""What of a prompt is not read is seen on the node that encodes it, in the workflow that it was queued from."""

from __future__ import annotations

import pytest
import torch
import workflows as w
from comfyui_server import Server
from page import Page
from safetensors.torch import save_file

pytestmark = pytest.mark.slow
FIRST = "Quick start"  # the name of the workflow, which is emptied
REMARK = "<blu> in the prompt is read as plain text: there is no such embedding. Did you mean <blue>?"
ON_NODES = "[data-testid^=node-body-] .ti-train-warnings li, .dom-widget .ti-train-warnings li"
TOASTS = ".p-toast-message"
# Load Checkpoint, Load Embedding, CLIP Text Encode and a node that ends the workflow, with the ids 1 to 4
WORKFLOW = """(text) => {
    const { graph } = window.app;
    graph.clear();
    const kinds = ["CheckpointLoaderSimple", "TITrain_LoadEmbedding", "CLIPTextEncode", "ProbeConditioning"];
    const [model, word, encode, end] = kinds.map((kind, i) => {
        const node = window.LiteGraph.createNode(kind);
        graph.add(node);
        node.pos = [60 + 400 * i, 200];
        return node;
    });
    model.connect(1, word, word.findInputSlot("clip"));
    word.connect(0, encode, encode.findInputSlot("clip"));
    encode.connect(0, end, end.findInputSlot("conditioning"));
    const set = (node, name, value) => (node.widgets.find((widget) => widget.name === name).value = value);
    set(model, "ckpt_name", "sd1.safetensors");
    set(word, "embedding_name", "blue.safetensors");
    set(word, "placeholder", "<blue>");
    set(encode, "text", text);
    set(end, "file", "encoded.pt");
    encode.title = "My prompt";
}"""


@pytest.fixture(params=[False, True], ids=["classic", "nodes 2.0"])
def opened(request, page, server) -> Page:
    save_file({"emb_params": torch.ones(1, 768) * 0.02}, server.base / "models" / "embeddings" / "blue.safetensors")
    opened: Page = page(**{"Comfy.VueNodes.Enabled": request.param})
    if request.param and opened.tab.evaluate("window.__COMFYUI_FRONTEND_VERSION__").startswith("1.27."):
        pytest.skip("Nodes 2.0 of front end 1.27 draws no elements of packs")
    opened.load(FIRST)
    opened.tab.evaluate(WORKFLOW, "a <blu> thing")
    return opened


def run(opened: Page) -> None:
    opened.run()
    opened.wait_until_idle()
    opened.tab.wait_for_timeout(1000)


def toasts(opened: Page) -> list[str]:
    """Those that are shown; they are closed."""
    found = [toast.inner_text() for toast in opened.tab.locator(TOASTS).all()]
    for button in reversed(opened.tab.locator(".p-toast-close-button").all()):
        button.press("Enter")
    opened.tab.wait_for_timeout(800)
    return found


def on_nodes(opened: Page, *remarks: str) -> None:
    """Waits until these are the remarks on the nodes: a busy page shows them late."""
    opened.wait_for(lambda: opened.tab.locator(ON_NODES).all_inner_texts() == [*remarks])


def test_a_misspelt_mark_is_seen_on_its_node_in_every_run(opened, server):
    run(opened)
    on_nodes(opened, REMARK)
    (toast,) = toasts(opened)
    assert "My prompt" in toast
    assert REMARK in toast
    assert server.said().count(REMARK) >= 1

    opened.set("ProbeConditioning", file="again.pt")
    run(opened)  # the prompt's encoding is in the host's cache
    on_nodes(opened, REMARK)  # it is still true
    assert toasts(opened) == []

    said = server.said().count(REMARK)
    opened.set("CLIPTextEncode", text="a <blu> thing, a red <blu>")
    run(opened)
    on_nodes(opened, REMARK)
    assert len(toasts(opened)) == 1
    assert server.said().count(REMARK) == said + 1

    opened.set("CLIPTextEncode", text="a <blue> thing")
    run(opened)
    on_nodes(opened)
    assert toasts(opened) == []
    assert not opened.problems()


def by_api(server: Server) -> None:
    """The same nodes with the same ids, queued by a program without a page."""
    given = {"embedding_name": "blue.safetensors", "placeholder": "<blue>", "strength": 1.0}
    server.run(
        {
            "1": w.node("CheckpointLoaderSimple", ckpt_name="sd1.safetensors"),
            "2": w.node("TITrain_LoadEmbedding", clip=["1", 1], **given),
            "3": w.node("CLIPTextEncode", clip=["2", 0], text="another <blu> thing"),
            "4": w.node("ProbeConditioning", conditioning=["3", 0], file="api.pt"),
        }
    )


def test_it_is_shown_in_no_other_workflow(opened, server):
    """Nodes of several workflows have the same ids."""
    run(opened)
    opened.tab.evaluate("window.app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    opened.tab.evaluate(WORKFLOW, "a <blue> thing")
    by_api(server)
    opened.tab.wait_for_timeout(1000)
    on_nodes(opened)
    names = "window.app.graph.nodes.flatMap((node) => node.widgets.map((widget) => widget.name))"
    assert not {"ti_train_remarks", "$$node-text-preview"} & set(opened.tab.evaluate(names))

    opened.tab.locator(".workflow-tabs").get_by_text(FIRST, exact=True).first.click()
    opened.tab.wait_for_timeout(1000)
    on_nodes(opened, REMARK)
    assert not opened.problems()
