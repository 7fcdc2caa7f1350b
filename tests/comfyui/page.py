"""ComfyUI's page in a headless Chromium, used as a person uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfyui_server import Server

OFFLINE = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
READY = "window.app?.graph && window.app.extensionManager && document.querySelector('[data-testid=queue-button]')"
PANEL = (
    "[data-testid^=node-body-] .ti-train-panel:not(.ti-train-picker), .dom-widget .ti-train-panel:not(.ti-train-picker)"
)
CARDS = ".ti-train-pictures [role=listitem]"
SEND = "([name, detail]) => window.comfyAPI.api.api.dispatchEvent(new CustomEvent('ti_train.' + name, {detail}))"
QUEUE = "window.comfyAPI.api.api.queuePrompt(0, {output: {}, workflow: {}})"
EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"


class Page:
    """`said` gathers what the page writes to its console as an error or a warning."""

    def __init__(self, browser: Any, server: Server, without_pack: bool = False, **settings: Any) -> None:
        """settings: the front end's own, by their ids; they hold for pages that are opened later too."""
        self.server, self.said = server, []
        self.context = browser.new_context(viewport={"width": 1600, "height": 1000})
        if without_pack:
            self.context.route("**/extensions/ti-train/**", lambda route: route.fulfill(content_type="text/javascript"))
        self.tab = self.context.new_page()
        self.tab.on("console", lambda m: self.said.append(m.text) if m.type in ("error", "warning") else None)
        self.tab.on("pageerror", lambda error: self.said.append(error.stack or str(error)))
        # the first: else the templates lie over everything; the second: else the setting of the page before holds
        always = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False}
        server.post("/api/settings", always | settings)
        self.open()

    def open(self) -> None:
        self.tab.goto(self.server.url, timeout=120_000)
        self.tab.wait_for_function(READY, timeout=120_000)
        self.tab.wait_for_timeout(1500)  # the page opens its last workflow by itself

    def load(self, example: str) -> None:
        """As the page's template browser does."""
        workflow = json.loads((EXAMPLES / f"{example}.json").read_text(encoding="utf-8"))
        self.tab.evaluate("([graph, name]) => window.app.loadGraphData(graph, true, true, name)", [workflow, example])

    def set(self, kind: str, **values: Any) -> None:
        """Gives widgets of all nodes of a kind their values."""
        self.tab.evaluate(
            """([kind, values]) => {
                for (const node of window.app.graph.nodes.filter((n) => n.type === kind))
                    for (const widget of node.widgets.filter((w) => w.name in values)) {
                        widget.value = values[widget.name];
                        widget.callback?.(widget.value);
                    }
            }""",
            [kind, values],
        )

    def run(self) -> None:
        """Queues the workflow, and returns when the server has it: a slow page takes seconds to send it."""
        with self.tab.expect_response(lambda answer: answer.url.endswith("/api/prompt"), timeout=120_000):
            self.tab.get_by_test_id("queue-button").click()

    def wait_until_idle(self, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while any(self.server.get("/queue").values()):
            assert time.monotonic() < deadline, self.server.said()[-2000:]
            self.tab.wait_for_timeout(200)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.server.said()[-2000:]
            self.tab.wait_for_timeout(200)

    def send(self, event: str, **detail: Any) -> None:
        """As if the server had sent an event of a run."""
        self.tab.evaluate(SEND, [event, detail])

    def show_run(self, **changes: Any) -> None:
        """A run that has just begun, of a prompt that was queued from the open workflow."""
        queued = {"prompt_id": "p", "number": 1, "node_errors": {}}
        self.tab.route("**/api/prompt", lambda route: route.fulfill(json=queued), times=1)
        self.tab.evaluate(QUEUE)
        begun = {
            "id": "x", "node": "3", "prompt_id": "p", "name": "toy", "steps": 10_000, "saved": True, "prompt": "",
            "step": 0, "status": "running", "message": "", "stopping": False, "previews": [], "warnings": [],
            "loss": [], "evaluations": [], "began": time.time(),
        }  # fmt: skip
        self.send("run", **begun | changes)

    def problems(self) -> list[str]:
        """What the page has said that comes from the pack."""
        # a page that is just loading hears the run's events before any extension is there to hear them
        return [
            s for s in self.said if ("ti-train" in s or "ti_train" in s) and not s.startswith("Unhandled message: ")
        ]

    def ids_of(self, kind: str) -> list[int]:
        found = "(kind) => window.app.graph.nodes.filter((n) => n.type === kind).map((n) => n.id)"
        return list(self.tab.evaluate(found, kind))

    def pictures_of(self, node: int) -> list[str]:
        """Addresses of what a node shows after a run."""
        images = self.tab.evaluate("(node) => window.app.nodeOutputs[node]?.images ?? []", str(node))
        return [f"/view?filename={i['filename']}&subfolder={i['subfolder']}&type={i['type']}" for i in images]

    def close(self) -> None:
        self.context.close()
