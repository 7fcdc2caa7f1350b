"""What ComfyUI's page costs a training: the same run with no page open and with the live panel in view, taking turns.

Needs a running ComfyUI with this pack, Playwright and a Chromium. CPU seconds are those of the server's process, where
--pid gives it (Linux): they tell more than the clock on a machine that does other work too.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
QUICK_START = json.loads((ROOT / "example_workflows" / "Quick start.json").read_text(encoding="utf-8"))
TRAIN = next(node["id"] for node in QUICK_START["nodes"] if node["type"] == "TITrain_TrainEmbedding")
SEEDS = count()  # ComfyUI does not run again what it has run
READY = "window.app?.graph && document.querySelector('[data-testid=queue-button]')"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="ComfyUI's address")
    parser.add_argument("checkpoint", help="a file of its checkpoints folder")
    parser.add_argument("folder", help="a folder of pictures in its input directory")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--pid", type=int, help="the server's process")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    a = parser.parse_args()
    run(a, 5)  # loads the model
    for _ in range(a.rounds):
        without = run(a, a.steps)
        with panel_open(a):
            seen = run(a, a.steps)
        for name, before, after in zip(("clock", "CPU"), without, seen, strict=True):
            print(f"{name}: {before:.1f} s without a page, {after:.1f} s with the panel open: {after / before:.3f}")


def run(a: argparse.Namespace, steps: int) -> tuple[float, float]:
    """Seconds of a training by the clock, and of the server's processor."""
    before = processor(a.pid)
    about = {"extra_pnginfo": {"workflow": {"id": QUICK_START["id"]}}}  # the panel of this workflow shows it
    ask(a.url, "/prompt", {"prompt": graph(a.checkpoint, a.folder, steps), "extra_data": about})
    while any(ask(a.url, "/queue").values()):
        time.sleep(0.5)
    seen = ask(a.url, "/ti_train/runs")[-1]
    if seen["status"] != "done":
        raise SystemExit(f"The run has {seen['status']}: {seen['message']}")
    return seen["elapsed"], processor(a.pid) - before


def processor(pid: int | None) -> float:
    if pid is None:
        return float("nan")
    times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")  # user and system


def graph(checkpoint: str, folder: str, steps: int) -> dict[str, Any]:
    settings = {
        "name": "page-cost", "initial_text": "object", "num_vectors": 1, "preset": "Balanced", "steps": steps,
        "learning_rate": 0.0, "seed": next(SEEDS), "preview_every": 0, "preview_prompts": "", "if_exists": "replace",
        "save": False,
    }  # fmt: skip
    links = {"model": ["model", 0], "clip": ["model", 1], "vae": ["model", 2], "images": ["pictures", 0]}
    return {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "pictures": {"class_type": "TITrain_LoadTrainingImages", "inputs": {"folder": folder, "subfolders": False}},
        str(TRAIN): {"class_type": "TITrain_TrainEmbedding", "inputs": settings | links},
    }


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@contextmanager
def panel_open(a: argparse.Namespace) -> Iterator[None]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=a.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(a.url)
        page.wait_for_function(READY, timeout=120_000)
        page.wait_for_timeout(2000)
        page.evaluate("(graph) => window.app.loadGraphData(graph, true, true, 'Quick start')", QUICK_START)
        page.wait_for_timeout(3000)
        yield
        shown = page.locator(".ti-train-panel:not(.ti-train-picker) .noisy").first.get_attribute("d").count("L")
        browser.close()
    if shown < a.steps / 2:
        raise SystemExit(f"The panel showed {shown} steps of {a.steps}.")


if __name__ == "__main__":
    main()
