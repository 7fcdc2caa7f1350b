"""The routes of the API in a real FastAPI; no WebUI is needed."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from hostile_requests import JSON, Request, foreign

API, HOST = "/ti-train/v1", "127.0.0.1:7860"
BODIES = {  # of each route that changes something
    "train": {"name": "cat", "init": "toy", "pictures": "toys"},
    "interrupt": {"id": "task(1)"},
    "stop-and-keep": {"id": "task(1)"},
    "resume": {"id": "task(1)"},
    "refresh": None,
    "convert": {"word": "cat", "name": "dog"},
    "merge": {"words": ["cat", "dog"], "name": "both"},
}
Ask = Callable[[Request], tuple[int, Any]]


@pytest.fixture
def api(load_in_webui) -> Any:
    """The module, in a WebUI with --api."""
    sys.modules["modules"].shared.cmd_opts = SimpleNamespace(api=True, api_auth=None)
    return load_in_webui("webui_tab.api")


@pytest.fixture
def ask(api) -> Ask:
    """Sends a request to the routes; status and JSON of the answer."""
    fastapi = pytest.importorskip("fastapi")

    def ask(request: Request) -> tuple[int, Any]:
        path, _, query = request.path.partition("?")
        headers = [(key.lower().encode(), value.encode()) for key, value in ({"Host": HOST} | request.headers).items()]
        scope = {
            "type": "http", "http_version": "1.1", "scheme": "http", "method": request.method, "path": path,
            "query_string": query.encode(), "headers": headers, "root_path": "",
        }  # fmt: skip
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        app = fastapi.FastAPI()
        api.add_routes(None, app)
        asyncio.run(app(scope, receive, send))
        return said[0]["status"], json.loads(b"".join(message.get("body", b"") for message in said[1:]))

    return ask


@pytest.fixture
def done(api, monkeypatch) -> list[str]:
    """What the routes do, which is nothing here."""
    done: list[str] = []
    job, status = SimpleNamespace(id="task(1)"), api.Status.construct(id="task(1)", messages=[], history=[])
    monkeypatch.setattr(api.jobs, "start", lambda request: done.append("train") or job)
    monkeypatch.setattr(api.jobs, "resume", lambda request: done.append("resume") or job)
    monkeypatch.setattr(api.jobs, "request_of", lambda job_id: "request")
    monkeypatch.setattr(api.jobs, "find", lambda job_id: job)
    monkeypatch.setattr(api.jobs, "interrupt", lambda job: done.append("interrupt"))
    monkeypatch.setattr(api.jobs, "stop_and_keep", lambda job: done.append("stop-and-keep"))
    monkeypatch.setattr(api.embedding_files, "reload", lambda: done.append("refresh"))
    monkeypatch.setattr(api.embedding_files, "listed", lambda: [])
    monkeypatch.setattr(api, "status_of", lambda job: status)
    return done


def post(route: str, **headers: str) -> Request:
    body = BODIES[route]
    return Request("POST", f"{API}/{route}", b"" if body is None else json.dumps(body).encode(), headers)


def test_each_route_that_changes_something_has_a_request_here(api):
    app = SimpleNamespace(added=[])
    app.add_api_route = lambda path, _, methods, **given: app.added.append((path, *methods))
    api.add_routes(None, app)
    assert {path for path, method in app.added if method == "POST"} == {f"{API}/{route}" for route in BODIES}


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 300 + ".pt", "x/" * 2000, "/" + "x" * 300, "cats:" + "9" * 5000, "\ud83d.pt"]
)
def test_what_no_file_can_be_called_is_refused_in_words(ask, tmp_path, name):
    """FastAPI sends it as it is: longer than file systems take, and half a character, which no answer can have."""
    modules = sys.modules["modules"]
    folders = {"embeddings_dir": str(tmp_path), "textual_inversion_templates_dir": str(tmp_path)}
    vars(modules.shared.cmd_opts).update(folders, webui_is_non_local=False, hide_ui_dir_config=False)
    modules.shared.opts.ti_train_folder = str(tmp_path / "training")
    picture = tmp_path / "training" / "pictures" / "toys" / "a.png"
    picture.parent.mkdir(parents=True)
    picture.touch()
    bodies = [(route, body | {field: name}) for route, body in BODIES.items() if body for field in body]
    bodies += [
        ("train", BODIES["train"] | more) for more in ({"more_pictures": [name]}, {"resume": True, "name": name})
    ]
    bodies += [("resume", {"name": name}), ("merge", {"words": [name, name], "name": "both"})]
    for route, body in bodies:
        status, answer = ask(Request("POST", f"{API}/{route}", json.dumps(body).encode(), {"Content-Type": JSON}))
        assert status in (400, 404, 422), (route, answer)


@pytest.mark.parametrize("route", BODIES)
def test_a_page_of_another_site_changes_nothing(api, ask, done, route):
    answers = [ask(other) for other in foreign(post(route))]
    assert {status for status, _ in answers} == {403} < api.ERROR_RESPONSES.keys(), answers
    assert "a page of another site" in answers[0][1]["detail"]
    assert done == []


@pytest.mark.parametrize("route", ["train", "resume", "refresh"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": JSON},  # a script
        {"Content-Type": JSON, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"},  # the WebUI's /docs
        {"Content-Type": JSON, "Origin": "http://allowed.example", "Sec-Fetch-Site": "cross-site"},  # asked first
    ],
)
def test_scripts_and_the_pages_of_the_webui_are_answered(ask, done, route, headers):
    status, said = ask(post(route, **headers))
    assert status == 200, said
    assert done == [route]


def test_who_ends_a_job_is_told_its_status(ask, done):
    for route in ("interrupt", "stop-and-keep"):
        status, said = ask(post(route, **{"Content-Type": JSON}))
        assert (status, said["id"]) == (200, "task(1)")
    assert done == ["interrupt", "stop-and-keep"]


def test_a_script_needs_no_type_where_nothing_is_sent(ask, done):
    assert ask(post("refresh"))[0] == 200
    assert ask(post("refresh", Origin=f"http://{HOST}"))[0] == 200
    assert done == ["refresh"] * 2


@pytest.fixture
def long_job(api, monkeypatch) -> Any:
    """A job that has 25,000 steps so far."""
    steps = [SimpleNamespace(step=n, loss=0.5, validation_loss=None, seconds=1.0) for n in range(25_001)]
    pace = SimpleNamespace(seconds_left=2.0)
    session = SimpleNamespace(steps=steps, loss=0.5, validation_loss=0.25, pace=pace, file="cat.safetensors")
    job = SimpleNamespace(
        id="task(1)", request=SimpleNamespace(name="cat"), state="running", messages=["a note"], error="",
        config=SimpleNamespace(steps=30_000), session=session,
    )  # fmt: skip
    monkeypatch.setattr(api.jobs, "find", lambda job_id: job)
    return job


def told(ask: Ask, **query: Any) -> dict[str, Any]:
    status, said = ask(Request("GET", f"{API}/status?" + urlencode({"id": "task(1)"} | query)))
    assert status == 200, said
    return dict(said)


def test_a_history_comes_in_parts_if_it_is_long(ask, long_job):
    parts = [told(ask, history="true")["history"]]
    for _ in range(3):
        parts.append(told(ask, history="true", since=parts[-1][-1]["step"] + 1)["history"])
    assert [len(part) for part in parts] == [10_000, 10_000, 5_001, 0]
    assert [row["step"] for part in parts for row in part] == [*range(25_001)]
    assert parts[0][0] == {"step": 0, "loss": 0.5, "noise_free_loss": None}


def test_a_history_comes_with_the_state_and_costs_its_client_time(ask, long_job):
    long_job.session.steps = long_job.session.steps[:100]
    alone, whole = told(ask), told(ask, history="true")
    assert len(whole["history"]) == 100
    assert whole | {"history": [], "ask_again": alone["ask_again"]} == alone
    long_job.session.steps = [SimpleNamespace(**vars(step)) for step in long_job.session.steps] * 100
    assert told(ask, history="true")["ask_again"] > 5


def test_a_history_keeps_no_other_request_waiting(api, ask, long_job, monkeypatch):
    threads, write = [], api.with_history
    monkeypatch.setattr(api, "with_history", lambda *given: threads.append(threading.get_ident()) or write(*given))
    told(ask, history="true")
    assert threads
    assert threading.get_ident() not in threads
