"""The pretended card of the WebUI's process, for the tests: routes below /ti-train-test."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from devices.card import GIB, Card, count_used
from fastapi import Body
from modules import call_queue, script_callbacks, shared
from ti_train_extension_pack.ti_train.events import Event, Preview, Step
from ti_train_extension_pack.ti_train.host import SampleRequest
from ti_train_extension_pack.ti_train.training import loop, validation
from ti_train_extension_pack.webui_tab import jobs
from ti_train_extension_pack.webui_tab.hosts import connect

SPARE = 8 * 2**20  # bytes, less than what the WebUIs want free beyond a model's size to load it beside another
ACTIVATIONS = 64 * 2**20  # bytes, of a training step of the tests
WHOLE = Card.total
KINDS = {"step": Step, "preview": Preview, "nothing": ()}
show = jobs._show

# previews and validations of the tests are quick
loop.SampleRequest = partial(SampleRequest, steps=1)
validation.SIZE = 1


def model_management() -> Any:
    """Forge's and reForge's; None in A1111."""
    names = ("backend.memory_management", "ldm_patched.modules.model_management")
    return next((sys.modules[name] for name in names if name in sys.modules), None)


def size_of(*modules: torch.nn.Module) -> int:
    return sum(p.numel() * p.itemsize for module in modules for p in module.parameters())


def unload() -> None:
    """Has the WebUI throw every model out, as somebody's extension would: in no particular mode."""
    if model_management():
        model_management().unload_all_models()
    else:
        from modules import sd_models

        sd_models.unload_model_weights()


def unload_after(what: str = Body(..., embed=True)) -> None:
    """Unloads after each "step" or "preview" of a training; "nothing": no longer."""

    def shown_and_unloaded(job: jobs.Job, event: Event) -> None:
        show(job, event)
        if isinstance(event, KINDS[what]):
            unload()

    jobs._show = shown_and_unloaded


def unload_in_step() -> None:
    """Unloads in the middle of the U-Net's first pass of a training step, as a request would."""

    def unload_once(_network: Any, _inputs: Any) -> None:
        if torch.is_grad_enabled():
            hook.remove()
            unload()

    with call_queue.queue_lock:
        hook = connect().network.out.register_forward_pre_hook(unload_once)


def resize(what: str = Body(..., embed=True)) -> None:
    """The card's memory: "whole"; "tight", where each model pushes out the others; "short" of what a step needs.

    Back to "whole", the models stay as they are: nobody tells the WebUI that there is more memory by now.
    """
    with call_queue.queue_lock:
        host = connect()
        if what != "whole":
            unload()
        together = size_of(host.network, *host.transformers.values())
        management = model_management()
        least = management.minimum_inference_memory() + SPARE if management else ACTIVATIONS
        sizes = {"whole": WHOLE, "tight": together + int(least), "short": together - SPARE}
        Card.total = sizes[what]


def fail(kernel: int = Body(..., embed=True)) -> None:
    """The memory is full at a kernel of the training's first step, counted from 0, and at all that follow in it."""
    count = [0]

    def full(_name: str) -> bool:
        if not torch.is_grad_enabled():
            return False
        count[0] += 1
        return count[0] > kernel

    with call_queue.queue_lock:
        host = connect()
        hook = host.network.register_forward_pre_hook(lambda *_: setattr(Card, "fail_at", full))
        shared.ti_train_test_hook = hook


def mend() -> None:
    with call_queue.queue_lock:
        shared.ti_train_test_hook.remove()
        Card.fail_at = None


def described() -> dict[str, Any]:
    with call_queue.queue_lock:
        host = connect()
        weights = [p for m in (host.network, *host.transformers.values()) for p in m.parameters()]
        return {
            "device": host.device.type,
            "dtypes": sorted({str(p.dtype) for p in weights}),
            "devices": sorted({p.device.type for p in weights}),
            "used": count_used() / GIB,
        }


def add_routes(_demo: Any, app: Any) -> None:
    for function, name in (
        *((unload_after, "unload-after"), (unload_in_step, "unload-in-step"), (resize, "resize")),
        *((fail, "fail"), (mend, "mend")),
    ):
        app.add_api_route(f"/ti-train-test/{name}", function, methods=["POST"])
    app.add_api_route("/ti-train-test/card", described, methods=["GET"])


script_callbacks.on_app_started(add_routes)
