"""Clients of a WebUI that ask for a training's state while it runs: pages of the tab, and users of the API."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

from jobs_over_http import API, begin, until
from webui_server import USER, Server

from .long import last_step
from .polling import Ask, Clients, Part, alternated, answer

NAME, STEPS = "polled", 1_000_000  # it is interrupted
JSON = {"Content-Type": "application/json"}
LOOK = "ti_train_look"  # the button that the page clicks


def polled(server: Server, number: int, seconds: float) -> Iterator[tuple[str, Part, Part]]:
    """For pages of the tab and for users of the API: a training's parts without them and with so many."""
    with training(server) as job:
        log = server.base / "ti-train" / "runs" / NAME / "loss.csv"
        for who, ask in (("API", api(job)), ("tab", tab(server, job))):
            clients = Clients(server.url, ask)
            yield who, *alternated(clients, number, seconds, server.process.pid, lambda: last_step(log))


@contextmanager
def training(server: Server) -> Iterator[str]:
    """Runs within the context; its job."""
    job = begin(server, name=NAME, steps=STEPS)
    until(server, job, "running", step=20)
    try:
        yield job
    finally:
        server.post(f"{API}/interrupt", {"id": job})


def api(job: str) -> Ask:
    """Asks as a script does, and again when it is told to."""
    who = {"Authorization": "Basic " + base64.b64encode(USER.encode()).decode()}

    def ask(connection: HTTPConnection, _number: int) -> float:
        told = json.loads(answer(connection, f"{API}/status?id={quote(job)}", who))
        return float(told["ask_again"])

    return ask


def tab(server: Server, job: str) -> Ask:
    """Asks as the page's script does, by gradio."""
    number = handler(server.get("/config"), LOOK)
    body = json.dumps({"fn_index": number, "data": [job, 0], "session_hash": "a"}).encode()

    def ask(connection: HTTPConnection, _number: int) -> float:
        _, summary, *_ = json.loads(answer(connection, "/run/predict", JSON, body))["data"]
        told = re.search(r"data-again='([\d.]+)'", summary)
        return float(told[1]) if told else 1.0

    return ask


def handler(config: dict[str, Any], element: str) -> int:
    """gradio's number for what a click on an element calls."""
    (button,) = [each["id"] for each in config["components"] if each["props"].get("elem_id") == element]
    calls = config["dependencies"]
    return next(n for n, call in enumerate(calls) if [button, "click"] in [list(target) for target in call["targets"]])
