"""A card whose memory is full, for the tests: a route below /ti-train-test."""

from __future__ import annotations

from typing import Any

import torch
from fastapi import Body
from modules import call_queue, script_callbacks
from ti_train_extension_pack.webui_tab.hosts import connect


def fill_memory(passes: int = Body(..., embed=True)) -> None:
    """The U-Net's first `passes` passes of a training step will find the memory full."""
    left = [passes]

    def fail(_network: Any, _inputs: Any) -> None:
        if torch.is_grad_enabled() and left[0]:
            left[0] -= 1
            raise torch.cuda.OutOfMemoryError("full by the test")
        if not left[0]:
            hook.remove()

    with call_queue.queue_lock:
        hook = connect().network.out.register_forward_pre_hook(fail)


def add_routes(_demo: Any, app: Any) -> None:
    app.add_api_route("/ti-train-test/fill-memory", fill_memory, methods=["POST"])


script_callbacks.on_app_started(add_routes)
