"""A training that is killed with the WebUI that it runs in."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs_over_http import API, begin, status
from webui_server import Server, clip_hub, drawn, start

from ti_train.own_folder import abandoned

from .in_server import InServer
from .runs import NAME

STEPS = 12  # of a larger model


def started(webui: Path, base: Path, images: Path) -> Server:
    """A WebUI with a narrow model of Stable Diffusion 1, which is drawn once for all tests."""
    shutil.copytree(images, base / "ti-train" / "pictures" / "toys")
    return start(webui, drawn("sd1"), clip_hub(), base)


class InWebUI(InServer):
    """See `started`."""

    def __init__(self, webui: Path, base: Path, images: Path) -> None:
        self._server = started(webui, base, images)
        self.folder, self._own = base / "embeddings", base / "ti-train"

    def begin(self, resumes: bool) -> str:
        if resumes:
            return str(self._server.post(f"{API}/resume", {"name": NAME})["id"])
        previews = {"preview_every": STEPS // 2, "preview_steps": 1}
        return begin(self._server, name=NAME, steps=STEPS, checkpoint_every=1, overwrite=True, **previews)

    def has_ended(self, job: str) -> bool:
        return status(self._server, job)["state"] not in ("queued", "running")

    def error(self, job: str) -> str:
        ended = status(self._server, job)
        return "" if ended["state"] == "done" else f"{ended['state']}: {ended['error']}"

    def unfinished(self) -> list[Path]:
        requests, left = self._own / "unfinished", [*abandoned(self._own / "previews")]
        return left + [path for path in self._own.rglob("*") if path.parent == requests or path.suffix[1:].isdecimal()]

    def process(self) -> int:
        return self._server.process.pid

    def kill(self) -> None:
        self._server.restart()

    def close(self) -> None:
        self._server.stop()
