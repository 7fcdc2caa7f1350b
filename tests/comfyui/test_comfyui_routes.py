"""The routes of the page in a real ComfyUI, against requests that the page does not send (see hostile_requests.py)."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comfyui_server import Server
from hostile_requests import NOT_THERE, VALID, Request, checked, contents, filled, foreign, hostile

ABROAD = "192.168.1.5:8188"  # an address of a local network, at which ComfyUI looks at no Origin


@pytest.fixture(scope="module")
def bare(comfyui, tmp_path_factory) -> Iterator[Server]:
    """A ComfyUI without models, with files in each of our folders and beside them."""
    base = tmp_path_factory.mktemp("routes")
    filled(base / "input", base / "models" / "embeddings", base / "user")
    running = Server(comfyui, base)
    yield running
    running.stop()


def send(server: Server, request: Request) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.url.partition("//")[2], timeout=60)
    try:
        connection.request(request.method, request.path, request.body or None, dict(request.headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ours(base: Path) -> dict[str, str]:
    """The files that a request could change, and those that none may."""
    folders = ("input", "models/embeddings", "beside", "user/ti_train")
    return {f"{folder}/{name}": digest for folder in folders for name, digest in contents(base / folder).items()}


def test_no_request_fails_or_reaches_beyond_the_folders(bare):
    before = ours(bare.base)
    answered = ((request, *send(bare, request)) for request in hostile())
    # empty: ComfyUI's own answer where the path is none of our routes
    wrong = [why for request, *answer in answered if answer != [404, b""] for why in checked(request, *answer)]
    assert not wrong, "\n".join(wrong)
    after = ours(bare.base)
    assert {path for path in after if after[path] != before.get(path)} <= {"input/toy/a.txt"}, "the one valid entry"
    assert before.keys() <= after.keys()
    assert "Traceback" not in bare.said()


@pytest.mark.parametrize("host", ["", ABROAD], ids=["loopback", "local network"])
def test_a_page_of_another_site_changes_nothing(bare, host):
    before = ours(bare.base)
    for request in (request for request in VALID.values() if request.method == "POST"):
        for other in foreign(request):
            if other.headers.get("Origin") == "http://[":  # ComfyUI itself fails to read this one
                continue
            told = {**other.headers, **({"Host": host} if host else {})}
            assert send(bare, replace(other, headers=told))[0] == 403, other
    assert ours(bare.base) == before


def test_each_route_answers_the_page(bare):
    for route, request in VALID.items():
        status, body = send(bare, request)
        assert status == (404 if route in NOT_THERE else 200), f"{request}: {body!r}"
