"""Calls into the WebUI that fail while a job trains, each in turn: all is left as it was, the next job is the same."""

from __future__ import annotations

from typing import Any

import pytest
from failing_calls import ERRORS, first_of_each, to_fail
from jobs_over_http import begin, status, until, write_toys
from webui_server import Server

pytestmark = pytest.mark.slow
RUN: dict[str, Any] = {"steps": 2, "batch_size": 2, "preview_every": 2, "preview_steps": 1, "overwrite": True}


def run(server: Server, fails: int = 0, error: str = "host", **more: Any) -> tuple[list, list, str]:
    """The losses of a training, the kinds of its calls into the WebUI, and how it ended."""
    server.post("/ti-train-test/watch-calls", {"fails": fails, "error": error})
    try:
        job = begin(server, name="failing", **RUN, **more)
        ended = until(server, job, "done", "failed", "interrupted")
    finally:
        kinds = server.post("/ti-train-test/calls")
    losses = [(step["loss"], step["noise_free_loss"]) for step in status(server, job, history=True)["history"]]
    return losses, kinds, ended["state"] + ended["error"]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("error", ERRORS)
def test_whichever_call_fails_all_is_left_as_it_was(server, error, checkpointing):
    write_toys(server)
    untouched = server.picture("a photo of a toy")
    run(server, gradient_checkpointing=checkpointing)
    whole, kinds, _ = run(server, gradient_checkpointing=checkpointing)
    before, left = server.get("/ti-train-test/state"), []
    assert len(first_of_each(kinds)) >= 15, "kinds of calls"
    for number in to_fail(kinds):
        _, made, ended = run(server, number, error, gradient_checkpointing=checkpointing)
        assert len(made) >= number, "the call was not made"
        now = server.get("/ti-train-test/state")
        changed = {key: (value, now[key]) for key, value in before.items() if now[key] != value}
        left += [(number, kinds[number - 1], ended, changed)] if changed else []
    assert left == []
    assert run(server, gradient_checkpointing=checkpointing)[0] == whole
    assert server.picture("a photo of a toy") == untouched
