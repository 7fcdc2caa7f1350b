"""A real ComfyUI on loopback with the pack linked into its custom_nodes, spoken to through its API as the page does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STARTS_WITHIN, RUNS_WITHIN = 300, 1800  # seconds


class RefusedError(Exception):
    """The server did not take a workflow: its answer, as text."""


class Server:
    """`base` is ComfyUI's base directory: models, input, output and custom_nodes are below it."""

    def __init__(
        self, comfyui: Path, base: Path, front_end: Path | None = None, flags: Sequence[str] = ("--cpu",)
    ) -> None:
        """front_end: the folder of the page's index.html; without it there is no page, only the API."""
        self.base, self.front_end = base, front_end
        for folder in ("custom_nodes", "input", "output", "models/checkpoints", "models/embeddings", "models/loras"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        link = base / "custom_nodes" / "ti-train"
        if not link.exists():
            try:
                link.symlink_to(ROOT, target_is_directory=True)
            except OSError:  # Windows, where links need a privilege
                shutil.copytree(ROOT, link, ignore=shutil.ignore_patterns(".*"))
        self.url = f"http://127.0.0.1:{free_port()}"
        self.command = [
            os.environ.get("COMFYUI_PYTHON", sys.executable), "main.py", *flags, "--listen", "127.0.0.1",
            "--port", self.url.rsplit(":", 1)[1], "--base-directory", str(base), "--disable-auto-launch",
            "--database-url", "sqlite:///:memory:", "--disable-api-nodes",
            "--front-end-root", str(front_end or base / "custom_nodes"),
        ]  # fmt: skip
        self.comfyui = comfyui
        self.start()

    def start(self) -> None:
        """Again after stop(), at the same address."""
        self.log = (self.base / "server.log").open("ab")
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            self.command, cwd=self.comfyui, stdout=self.log, stderr=subprocess.STDOUT, env=environment
        )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.3)
        self.stop()
        raise RuntimeError("ComfyUI does not start:\n" + self.said()[-3000:])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def said(self) -> str:
        return (self.base / "server.log").read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path, headers={"Cache-Control": "no-cache"})  # as the page asks
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise RefusedError(error.read().decode()) from None

    def queue(self, workflow: dict[str, Any]) -> str:
        return str(self.post("/prompt", {"prompt": workflow})["prompt_id"])

    def wait(self, prompt: str) -> dict[str, Any]:
        """The history of a queued workflow once it is through, whatever became of it."""
        deadline = time.monotonic() + RUNS_WITHIN
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt}")
            if prompt in history:
                return dict(history[prompt])
            if self.process.poll() is not None:
                raise RuntimeError("ComfyUI died:\n" + self.said()[-3000:])
            time.sleep(0.1)
        raise TimeoutError(f"no end of {prompt} after {RUNS_WITHIN} s:\n" + self.said()[-3000:])

    def run(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Runs a workflow that has to succeed; its outputs by node."""
        history = self.wait(self.queue(workflow))
        if history["status"]["status_str"] != "success":
            raise AssertionError(f"{failure(history)}\n{self.said()[-3000:]}")
        return dict(history["outputs"])

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def files(self, outputs: dict[str, Any], node: str) -> list[Path]:
        """The pictures that a node saved or previewed."""
        folders = {"output": self.base / "output", "temp": self.base / "temp"}
        return [folders[i["type"]] / i["subfolder"] / i["filename"] for i in outputs[node]["images"]]


def failure(history: dict[str, Any]) -> str:
    """What the page would show: the exception's type and message; "interrupted" after Cancel."""
    for kind, message in history["status"]["messages"]:
        if kind == "execution_error":
            return f"{message['exception_type']}: {message['exception_message']}"
        if kind == "execution_interrupted":
            return "interrupted"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
