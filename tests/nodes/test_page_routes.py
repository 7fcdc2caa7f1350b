"""The routes of ComfyUI's page against requests that the page does not send; no ComfyUI is needed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from hostile_requests import NOT_THERE, RUN, VALID, Request, checked, contents, filled, foreign, get, hostile, post
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from vanishing import at_each_moment

Send = Callable[[Request], Awaitable[tuple[int, bytes]]]


@pytest.fixture
def base(tmp_path) -> Path:
    """ComfyUI's base directory, with files in each of our folders and beside them."""
    base = tmp_path / "base"
    filled(base / "input", base / "embeddings", base / "user")
    return base


@pytest.fixture
def drive(load_in_comfyui, base) -> Callable[[Callable[[Send], Awaitable[Any]]], Any]:
    """Runs a function with the routes in a server on loopback: it gets what sends a request and gives the answer."""
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer
    from yarl import URL

    files = sys.modules["folder_paths"]
    files.get_input_directory = lambda: str(base / "input")
    files.get_user_directory = lambda: str(base / "user")
    files.get_folder_paths = lambda _: [str(base / "embeddings")]
    files.recursive_search = lambda folder, excluded_dir_names: (below(folder), {})
    files.get_filename_list = lambda _: below(base / "embeddings")
    files.get_full_path = lambda _, file: found(base / "embeddings", file)
    table = web.RouteTableDef()
    sys.modules["server"].PromptServer.instance = SimpleNamespace(
        routes=table, sockets={}, send_sync=lambda *_: None, client_id=None
    )
    load_in_comfyui("nodes.page.routes").register()
    assert {f"{route.method} {route.path}" for route in table} == set(VALID), "VALID has a request for each route"

    def drive(act: Callable[[Send], Awaitable[Any]]) -> Any:
        async def session() -> Any:
            app = web.Application(client_max_size=2**22)
            app.add_routes(table)
            async with TestClient(TestServer(app)) as client:

                async def send(request: Request) -> tuple[int, bytes]:
                    url = client.make_url("/").join(URL(request.path, encoded=True))
                    call = client.session.request(
                        request.method, url, data=request.body or None, headers=request.headers, allow_redirects=False,
                        skip_auto_headers=["Content-Type"],
                    )  # fmt: skip
                    async with call as answer:
                        return answer.status, await answer.read()

                return await act(send)

        return asyncio.run(session())

    return drive


def below(folder: str | Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]


def found(folder: Path, file: str) -> str | None:
    """As ComfyUI's: the path is kept below the folder."""
    path = folder / os.path.relpath(os.path.join("/", file), "/")
    return str(path) if path.is_file() else None


def test_each_route_answers_the_page_and_each_post_changes_something(drive, base):
    async def ask(send: Send) -> None:
        for route, request in VALID.items():
            before = contents(base)
            status, body = await send(request)
            assert status == (404 if route in NOT_THERE else 200), f"{request}: {body!r}"
            if request.method == "POST" and route not in {*NOT_THERE, "POST /ti_train/page"}:
                assert contents(base) != before, request

    drive(ask)


def test_clients_that_ask_for_the_same_within_a_second_share_an_answer(drive, base, monkeypatch):
    monkeypatch.setattr("pack.nodes.page.answers.SECONDS", 60)
    routes, described = sys.modules["pack.nodes.page.routes"], []
    describe = routes.describe_folder
    monkeypatch.setattr(routes, "describe_folder", lambda *asked: described.append(asked) or describe(*asked))
    wanted, unknown = get("pictures", folder="toy"), get("thumbnail", file="none.png")

    async def ask(send: Send) -> None:
        first, *others = await asyncio.gather(*(send(wanted) for _ in range(5)))
        assert first[0] == 200
        assert others == [first] * 4
        assert len(described) == 1
        refused = await asyncio.gather(*(send(unknown) for _ in range(3)))
        assert [status for status, _ in refused] == [404] * 3
        assert refused[0][1] == refused[2][1] != b""
        await send(get("pictures", folder="toy", subfolders="1"))
        assert len(described) == 2, "another question"

    drive(ask)


def test_while_a_run_trains_clients_that_poll_wait_for_their_turns_and_the_page_does_not(drive, base, monkeypatch):
    answers, live, given = sys.modules["pack.nodes.page.answers"], sys.modules["pack.nodes.page.live"], []
    monkeypatch.setattr(answers, "turns", turns := sys.modules["pack.ti_train.polling"].Turns(0.0))
    monkeypatch.setattr(answers, "REQUEST", 0.2 * sys.modules["pack.ti_train.polling"].SHARE)
    next_turn = turns.next
    monkeypatch.setattr(turns, "next", lambda cost: given.append(next_turn(cost)) or given[-1])
    wanted = get("embeddings")
    fresh = replace(wanted, headers={"Cache-Control": "max-age=0"})  # fetch's "no-cache", which is ComfyUI's default

    async def ask(send: Send) -> None:
        await asyncio.gather(*(send(wanted) for _ in range(6)))
        assert given == [], "nothing trains"
        live.runs.append(SimpleNamespace(status="running"))
        began = monotonic()
        told = await asyncio.gather(*(send(wanted) for _ in range(6)))
        assert [status for status, _ in told] == [200] * 6
        assert len(given) == 6
        assert monotonic() - began > max(given) > 0
        await asyncio.gather(*(send(fresh) for _ in range(6)))
        assert len(given) == 6
        began = monotonic()
        await asyncio.gather(*(send(get("thumbnail", file="toy/a.png")) for _ in range(30)))
        assert monotonic() - began < given[-1], "a page's pictures do not wait, but take their turns"

    drive(ask)


def test_an_answer_is_not_older_than_a_change_by_the_page_or_a_request_for_a_new_one(drive, base, monkeypatch):
    monkeypatch.setattr("pack.nodes.page.answers.SECONDS", 60)
    wanted, given = get("pictures", folder="toy"), post("caption", {"file": "toy/a.png", "text": "a red toy"})
    fresh = replace(wanted, headers={"Cache-Control": "max-age=0"})  # fetch's "no-cache", which is ComfyUI's default

    async def shown(send: Send, request: Request) -> tuple[str, int]:
        pictures = json.loads((await send(request))[1])["pictures"]
        return next((one["caption"], one["width"]) for one in pictures if one["file"] == "toy/a.png")

    async def ask(send: Send) -> None:
        _, width = await shown(send, wanted)
        await send(given)
        assert await shown(send, wanted) == ("a red toy", width)
        Image.new("RGB", (3 * width, 64)).save(base / "input" / "toy" / "a.png")
        assert await shown(send, fresh) == ("a red toy", 3 * width)
        assert await shown(send, wanted) == ("a red toy", 3 * width)

    drive(ask)


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("input/toy/b.png", get("pictures", folder="toy")),
        ("input/toy/a-mask.png", get("pictures", folder="toy")),
        ("input/toy/b.png", get("thumbnail", file="toy/b.png")),
        ("embeddings/dog.safetensors", get("embeddings")),
        (f"user/ti_train/runs/{RUN}/run.json", get("records")),
        (f"user/ti_train/runs/{RUN}/0.jpg", get(f"runs/{RUN}/previews/0")),
        (f"user/ti_train/runs/{RUN}/0.jpg", get(f"runs/{RUN}/previews/0", small="1")),
    ],
)
def test_no_answer_fails_for_a_file_that_is_deleted_meanwhile(drive, base, file, wanted):
    (base / "input" / "toy" / "a-mask.png").write_bytes((base / "input" / "toy" / "a.png").read_bytes())
    (base / "embeddings" / "dog.safetensors").write_bytes((base / "embeddings" / "cat.safetensors").read_bytes())
    fresh = replace(wanted, headers={**wanted.headers, "Cache-Control": "no-cache"})

    async def ask(send: Send) -> list[tuple[int, bytes]]:
        return [await send(fresh)]

    answers = [answer for [answer] in at_each_moment(base / file, lambda: drive(ask))]
    assert answers
    for status, body in answers:
        assert status in (200, 404), body
        assert status == 404 or "pictures" in wanted.path or Path(file).name.encode() not in body


def test_no_request_fails_or_reaches_beyond_the_folders(drive, base):
    before = contents(base)

    async def ask(send: Send) -> list[str]:
        return [why for request in hostile() for why in checked(request, *await send(request))]

    wrong = drive(ask)
    assert not wrong, "\n".join(wrong)
    after = contents(base)
    assert {path for path in after if after[path] != before.get(path)} <= {"input/toy/a.txt"}, "the one valid entry"
    assert before.keys() <= after.keys()


@pytest.mark.parametrize("route", ["POST /ti_train/caption", "POST /ti_train/table"])
@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_a_body_that_is_not_packed_as_it_says_is_refused(drive, base, route, packed):
    """aiohttp closes the connection after the answer, and writes a traceback of its own to the log."""
    before, valid = contents(base), VALID[route]
    wrong = replace(valid, headers={**valid.headers, "Content-Encoding": packed, "Connection": "close"})

    async def ask(send: Send) -> tuple[int, bytes]:
        return await send(wrong)

    status, body = drive(ask)
    assert (status, checked(wrong, status, body)) == (400, [])
    assert contents(base) == before


def test_any_text_is_answered(drive):
    texts = st.text(st.characters(), max_size=40)

    async def ask(send: Send, text: str) -> list[str]:
        requests = (
            get("pictures", folder=text, resolution=text),
            get("thumbnail", file=text),
            post("caption", {"file": text, "text": text}),
            post("embeddings/rename", {"file": text, "name": text}),
            post(f"runs/{RUN}/stop", text),
        )
        return [why for request in requests for why in checked(request, *await send(request))]

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(texts)
    def property_of(text: str) -> None:
        assert drive(lambda send: ask(send, text)) == []

    property_of()


def test_a_page_of_another_site_changes_nothing(drive, base):
    before = contents(base)

    async def ask(send: Send) -> list[tuple[int, bytes]]:
        changing = [request for request in VALID.values() if request.method == "POST"]
        return [await send(other) for request in changing for other in foreign(request)]

    assert {status for status, _ in drive(ask)} == {403}
    assert contents(base) == before


@pytest.mark.parametrize(
    "said",
    [
        *("[" * 100_000, "7", "null", "[]", "{}", ""),
        *({"name": 7}, {"previews": {}}, {"previews": [7]}, {"previews": [{"number": 0}]}, {"best": 7}, {"best": [3]}),
        *({"step": "3"}, {"loss": [[1]]}, {"band": [[1, 2]]}),
    ],
)
def test_a_damaged_record_of_a_run_counts_as_none(drive, base, said):
    """The page shows none of the others if it fails for one."""
    file = base / "user" / "ti_train" / "runs" / RUN / "run.json"
    file.write_text(said if isinstance(said, str) else json.dumps(json.loads(file.read_text()) | said))
    (base / "user" / "ti_train" / "runs" / RUN / "0.jpg").write_bytes(b"\xff\xd8 no picture")

    async def ask(send: Send) -> list[str]:
        requests = [request for route, request in VALID.items() if "records" in route or "{run}" in route]
        wrong = [why for request in requests for why in checked(request, *await send(request))]
        return wrong + [f"listed: {one}" for one in json.loads((await send(get("records")))[1])]

    wrong = drive(ask)
    assert not wrong, "\n".join(wrong)


def test_a_run_that_begins_while_the_runs_are_listed_fails_no_answer(drive):
    runs = sys.modules["pack.nodes.page.live"].runs

    class Run:
        id, status, facts = "run", "done", {"name": "cat"}

        def snapshot(self) -> dict[str, str]:
            runs.append(Run())  # as another thread does
            return {"id": self.id}

    runs.extend([Run(), Run()])

    async def ask(send: Send) -> int:
        return (await send(get("runs")))[0]

    assert drive(ask) == 200


def test_stop_and_keep_reaches_the_run_that_the_page_shows(drive):
    runs, told = sys.modules["pack.nodes.page.live"].runs, []
    others = [SimpleNamespace(id=name, stop=threading.Event(), send=lambda *said: told.append(said)) for name in "ab"]
    runs.extend(others)

    async def ask(send: Send) -> int:
        return (await send(post("runs/b/stop", {})))[0]

    assert drive(ask) == 200
    assert [run.stop.is_set() for run in others] == [False, True]
    assert told == [("stopping", {})]


def test_the_trained_area_of_a_wide_image_is_its_middle(drive, base):
    Image.new("RGB", (96, 64)).save(base / "input" / "toy" / "a.png")

    async def ask(send: Send) -> dict[str, Any]:
        return dict(json.loads((await send(get("pictures", folder="toy", resolution="64", square="1")))[1]))

    wide, _ = drive(ask)["pictures"]
    assert wide["crop"] == pytest.approx([1 / 6, 0, 2 / 3, 1])
