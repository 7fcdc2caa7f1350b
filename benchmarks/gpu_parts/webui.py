"""Part 8: a real WebUI, by its API: a training first of all, then a picture on the same model and after new starts."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from .demo import CONCEPT, DEMO
from .finding import ROUNDING, Finding, Options
from .random_models import ROOT, checkpoint_file

sys.path[1:1] = [str(ROOT / "tests" / "webui")]

from webui_server import Server, kind_of  # noqa: E402

API, WORD, WAITS = "/ti-train/v1", "gpu-word", 300  # seconds
NAMES = {"a1111": "AUTOMATIC1111", "reforge": "reForge", "forge": "Forge"}
SIDE, SMALL_SIDE = 512, 64


def measure(options: Options) -> Iterator[Finding]:
    webui = Path(options.webui).resolve()
    os.environ["WEBUI_PYTHON"] = options.webui_python or sys.executable
    checkpoint, base = checkpoint_file(options), Path(options.scratch) / "webui"
    folder = base / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    for file in checkpoint.parent.glob(f"{checkpoint.stem}.*"):
        (folder / file.name).hardlink_to(file)
    shutil.copytree(DEMO / "concepts" / CONCEPT, base / "ti-train" / "pictures" / CONCEPT)
    case = NAMES[kind_of(webui)]
    server = Server(webui, base, hub=None, on_cpu=options.device == "cpu")
    try:
        steps = 2 if options.small else 10
        began = time.perf_counter()
        ended = learn(server, steps, options)
        if ended["state"] != "done":
            yield Finding(case, {"said": ended["error"]}, {"webui": False})
            return
        figures: dict[str, str | float] = {f"training of {steps} steps, s": time.perf_counter() - began}
        with_embedding, after = picture(server, WORD, options), picture(server, "heart", options)
        server.restart()
        anew = [picture(server, "heart", options)]
        (base / "embeddings" / f"{WORD}.safetensors").unlink()
        server.restart()
        anew.append(picture(server, "heart", options))
        unknown = picture(server, WORD, options)
    finally:
        server.stop()
    apart, by_itself = difference(after, anew[0]), difference(*anew)
    figures |= {"picture after training against a new start": apart, "two new starts": by_itself}
    kept = {"webui": difference(with_embedding, unknown) > 0, "unchanged": apart <= by_itself + ROUNDING}
    yield Finding(case, figures, kept)


def learn(server: Server, steps: int, options: Options) -> dict[str, Any]:
    """The job's status in the end."""
    settings = {"steps": steps, "batch_size": 1, "resolution": SMALL_SIDE if options.small else SIDE}
    settings |= {"preview_every": steps}
    job = server.post(f"{API}/train", {"name": WORD, "init": "heart", "pictures": CONCEPT} | settings)["id"]
    deadline = time.monotonic() + WAITS
    while time.monotonic() < deadline:
        now: dict[str, Any] = server.get(f"{API}/status?id={quote(job)}&history=false")
        if now["state"] not in ("queued", "running"):
            return now
        time.sleep(0.2)
    return {"state": "failed", "error": f"no end after {WAITS} s: {server.said()[-1500:]}"}


def picture(server: Server, word: str, options: Options) -> np.ndarray:
    side = SMALL_SIDE if options.small else SIDE
    pixels = server.picture(f"a photo of a {word}", width=side, height=side, steps=8)
    return np.frombuffer(pixels, np.uint8).astype(np.int16)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest, of 255."""
    return float(np.abs(one - other).max())
