"""Trainings asked for over HTTP, and the pictures and words of their tests."""

from __future__ import annotations

import shutil
import time
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw
from webui_server import Server

from ti_train.formats import load_embedding

API = "/ti-train/v1"
QUICK = {"init": "toy", "pictures": "toys", "steps": 3, "batch_size": 1, "resolution": 64}


def write_toys(server: Server) -> None:
    folder = server.base / "ti-train" / "pictures" / "toys"
    shutil.rmtree(folder, ignore_errors=True)  # an earlier test on the same server may have added to it
    folder.mkdir(parents=True)
    for name, colour, size in (("blue", (40, 60, 200), (64, 64)), ("red", (200, 40, 40), (80, 64))):
        picture = Image.new("RGB", size, (230, 230, 220))
        ImageDraw.Draw(picture).ellipse([12, 8, 52, 48], fill=colour)
        picture.save(folder / f"{name}.png")


def status(server: Server, job: str, history: bool = False) -> dict[str, Any]:
    return server.get(f"{API}/status?id={quote(job)}&history={history}")


def begin(server: Server, **settings: Any) -> str:
    return str(server.post(f"{API}/train", QUICK | settings)["id"])


def until(server: Server, job: str, *states: str, step: int = 0) -> dict[str, Any]:
    """Waits for one of the states, at a step or later."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        now = status(server, job)
        if now["state"] in states and now["step"] >= step:
            return now
        assert now["state"] in ("queued", "running"), now
        time.sleep(0.1)
    raise TimeoutError(f"{now}\n{server.said()[-3000:]}")


def learn(server: Server, **settings: Any) -> dict[str, Any]:
    return until(server, begin(server, **settings), "done")


def vectors(server: Server, name: str) -> np.ndarray:
    return load_embedding(server.base / "embeddings" / f"{name}.safetensors").vectors["emb_params"].numpy()
