"""A WebUI that is killed in mid-run: nothing is lost, and the continued run ends in the very files of a whole one."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import start
from jobs_over_http import API, begin, learn, until, write_toys
from left_files import emptied
from webui_server import Server

from ti_train.formats import load_embedding
from ti_train.reproducible import EPOCH

pytestmark = pytest.mark.slow
RUN: dict[str, Any] = {"name": "toy", "steps": 6, "preview_every": 3, "preview_steps": 1, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def server(webui, checkpoint, hub, tmp_path_factory) -> Iterator[Server]:
    """Its own, whose equal runs leave equal files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EPOCH, "86400")
        running = start(webui, checkpoint, hub, tmp_path_factory.mktemp("webui"))
    write_toys(running)
    yield running
    running.stop()


def test_a_run_whose_server_is_killed_again_and_again_ends_in_the_files_of_a_whole_one(server):
    embeddings, draw, reached = server.base / "embeddings", random.Random(0), 0
    learn(server, **RUN)
    whole = emptied(embeddings)
    job = begin(server, **RUN)
    for _ in range(2):
        reached = until(server, job, "running", step=reached + 1)["step"]
        time.sleep(draw.uniform(0, 0.5))
        server.restart()
        if (embeddings / "toy.safetensors").exists():
            load_embedding(embeddings / "toy.safetensors")
        job = server.post(f"{API}/resume", {"name": "toy"})["id"]
    assert until(server, job, "done")["step"] == RUN["steps"]
    ended = emptied(embeddings)
    assert ended.keys() == whole.keys(), "nothing is missing, and no unfinished file is left"
    assert headers(ended) == headers(whole)
    assert [name for name in whole if ended[name] != whole[name]] == []
    assert not list((server.base / "ti-train" / "unfinished").iterdir())
    assert not list((server.base / "ti-train").rglob(".*.[0-9]*"))


def headers(files: dict[str, bytes]) -> dict[str, object]:
    """Of the embeddings among files."""
    embeddings = {name: data for name, data in files.items() if name.endswith(".safetensors")}
    return {name: json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]) for name, data in embeddings.items()}
