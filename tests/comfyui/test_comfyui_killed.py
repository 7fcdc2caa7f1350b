"""A ComfyUI that is killed in mid-run: nothing is lost, and the continued run ends in the very files of a whole one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workflows as w
from comfyui_server import Server
from conftest import draw_pictures
from left_files import emptied
from safetensors import safe_open

from ti_train.formats import load_embedding
from ti_train.reproducible import EPOCH

pytestmark = pytest.mark.slow
RUN: dict[str, Any] = {"name": "toy", "steps": 8, "learning_rate": 0.005, "preview_every": 4}


@pytest.fixture
def server(comfyui, drawn, tmp_path, monkeypatch) -> Iterator[Server]:
    """Its own, whose equal runs leave equal files."""
    monkeypatch.setenv(EPOCH, "86400")
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    (tmp_path / "models" / "checkpoints" / "sd1.safetensors").symlink_to(drawn / "sd1.safetensors")
    draw_pictures(tmp_path / "input" / "toys")
    running = Server(comfyui, tmp_path)
    yield running
    running.stop()


def test_a_run_whose_server_is_killed_again_and_again_ends_in_the_files_of_a_whole_one(server):
    embeddings = server.base / "models" / "embeddings"
    server.run(w.training(**RUN))
    whole = emptied(embeddings)
    draw, reached = random.Random(0), []
    for if_exists in ("replace", "continue"):  # ComfyUI runs nothing twice with the same inputs
        prompt = server.queue(w.training(**RUN, if_exists=if_exists))
        until_step(server, prompt, embeddings / "toy.resume", 1 + max(reached, default=0))
        time.sleep(draw.uniform(0, 0.5))
        server.process.kill()
        server.stop()
        reached.append(step_of(embeddings / "toy.resume"))
        if (embeddings / "toy.safetensors").exists():
            load_embedding(embeddings / "toy.safetensors")
        server.start()
    assert 0 < reached[0] < reached[1] < RUN["steps"]
    server.run(w.training(**RUN, if_exists="continue"))
    ended = emptied(embeddings)
    assert ended.keys() == whole.keys(), "nothing is missing, and no unfinished file is left"
    assert [name for name in whole if name.endswith(".safetensors") and ended[name] != whole[name]] == []
    assert steps_in(ended["toy.csv"]) == steps_in(whole["toy.csv"])


def until_step(server: Server, prompt: str, state: Path, step: int) -> None:
    while step_of(state) < step:
        assert prompt not in server.get(f"/history/{prompt}"), server.said()[-2000:]
        time.sleep(0.02)


def step_of(state: Path) -> int:
    if not state.exists():
        return 0
    with safe_open(state, framework="pt") as file:
        return int(file.metadata()["step"])


def steps_in(log: bytes) -> list[list[str]]:
    """The rows of a step log but for the times."""
    rows = [line.split(",") for line in log.decode().splitlines()]
    return [[cell for name, cell in zip(rows[0], row, strict=True) if name != "seconds"] for row in rows]
