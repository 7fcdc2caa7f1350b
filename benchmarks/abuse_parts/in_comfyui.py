"""A training that is killed with the ComfyUI that it runs in."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from comfyui_server import failure

from .in_server import InServer
from .many import Abused
from .runs import NAME

STEPS = 40


class InComfyUI(InServer):
    """With a tiny model of Stable Diffusion XL."""

    def __init__(self, comfyui: Path, base: Path, images: Path) -> None:
        self._abused, self._images, self._runs = Abused(comfyui, base), images, count()
        self.folder, self._server = self._abused.embeddings, self._abused.server

    def begin(self, resumes: bool) -> str:
        workflow = self._abused.training(NAME, self._images, STEPS)
        workflow["train"]["inputs"] |= {"preview_every": STEPS // 2, "if_exists": "continue" if resumes else "replace"}
        workflow["model"]["inputs"]["run"] = next(self._runs)  # ComfyUI runs nothing twice with the same inputs
        return self._server.queue(workflow)

    def has_ended(self, job: str) -> bool:
        return job in self._server.get(f"/history/{job}")

    def error(self, job: str) -> str:
        return failure(self._server.wait(job))

    def unfinished(self) -> list[Path]:
        return [path for path in (self._abused.base / "user" / "ti_train").rglob(".*") if path.is_file()]

    def process(self) -> int:
        return self._server.process.pid

    def kill(self) -> None:
        self._server.process.kill()
        self._server.stop()
        self._server.start()

    def close(self) -> None:
        self._server.stop()
