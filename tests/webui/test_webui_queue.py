"""What else waits in a WebUI's queue with a training: pictures, and other trainings of which some are called off."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from jobs_over_http import API, begin, learn, status, until, vectors, write_toys
from webui_server import Server

pytestmark = pytest.mark.slow
PROMPT, SEEDS = "a photo of a toy", (1, 2, 3)
RUN: dict[str, Any] = {"steps": 4, "preview_every": 2, "preview_steps": 1}
MANY = 12


def picture(server: Server, seed: int) -> bytes:
    return server.picture(PROMPT, seed=seed, steps=4)


def test_pictures_before_and_behind_a_training_are_those_without_it(server):
    write_toys(server)
    alone = [picture(server, seed) for seed in SEEDS]
    learn(server, name="alonetoy", **RUN)
    with ThreadPoolExecutor(len(SEEDS)) as queued:
        before = queued.submit(picture, server, SEEDS[0])
        job = begin(server, name="queuedtoy", **RUN)
        behind = [queued.submit(picture, server, seed) for seed in SEEDS[1:]]
        assert until(server, job, "done")["messages"] == []
        assert [each.result() for each in (before, *behind)] == alone
    assert np.array_equal(vectors(server, "queuedtoy"), vectors(server, "alonetoy"))


def test_of_trainings_that_wait_half_are_called_off_and_the_others_are_what_each_is_alone(server):
    write_toys(server)
    alone = picture(server, 1)
    learn(server, name="firsttoy")
    jobs = {f"waiting{number}": begin(server, name=f"waiting{number}") for number in range(MANY)}
    called_off = random.Random(0).sample(sorted(jobs)[1:], MANY // 2)
    for name in called_off:
        server.post(f"{API}/interrupt", {"id": jobs[name]})
    for name, job in jobs.items():
        ended = until(server, job, "done", "interrupted")["state"]
        if name not in called_off:
            assert ended == "done"
        if ended == "done":  # a call may come too late
            assert np.array_equal(vectors(server, name), vectors(server, "firsttoy"))
    assert any(status(server, jobs[name])["state"] == "interrupted" for name in called_off)
    assert picture(server, 1) == alone
