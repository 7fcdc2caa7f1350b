"""Calls into the WebUI that fail while a job trains, for the tests: routes below /ti-train-test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from failing_calls import FailingCalls, Kind, Place
from fastapi import Body
from modules import call_queue, devices, processing, script_callbacks, sd_samplers
from ti_train_extension_pack.webui_tab.hosts import connect

MANAGEMENT = ("backend.memory_management", "ldm_patched.modules.model_management")  # Forge's, reForge's
OF_MODEL = ("encode_first_stage", "decode_first_stage", "get_first_stage_encoding", "apply_model", "set_clip_skip")
OF_ENCODER = ("forward", "__call__", "tokenize", "process_texts", "process_tokens", "encode_with_transformers")
watched: list[FailingCalls] = []


def places(host: Any) -> Iterator[Place]:
    """What the adapter calls of the WebUI, directly or by sampling a preview."""
    yield from of(type(host.network), "forward")
    yield from of(type(host.autoencoder), "encode", "decode", "forward")
    yield from of(type(host.model), *OF_MODEL)
    for part, encoder in zip(host.transformers.values(), host.encoders.values(), strict=True):
        yield from of(type(part), "forward")
        yield from of(type(encoder), *OF_ENCODER)
    for database in host.databases:
        yield from of(type(database), "find_embedding_at_position", "load_textual_inversion_embeddings")
    for name in MANAGEMENT:
        if name in sys.modules:
            yield from of(sys.modules[name], "load_models_gpu", "unload_all_models", "soft_empty_cache")
    if "networks" in sys.modules:
        yield from of(sys.modules["networks"], "load_networks")
    yield from of(processing, "process_images", "process_images_inner", "create_random_tensors")
    yield from of(processing.StableDiffusionProcessingTxt2Img, "init", "sample", "close", "setup_conds")
    yield from of(sd_samplers, "create_sampler")
    yield from of(devices, "torch_gc")


def of(owner: Any, *names: str) -> Iterator[Place]:
    """Those that it has; of a class not PyTorch's own `__call__`, which calls `forward`."""
    module = hasattr(owner, "register_forward_hook")
    yield from ((owner, name) for name in names if hasattr(owner, name) and not (module and name == "__call__"))


def watch(fails: int = Body(...), error: str = Body(...)) -> None:
    """From now on calls are counted; this one fails with this error. 0: none."""
    with call_queue.queue_lock:
        watched.append(FailingCalls(places(connect())))
        watched[-1].restart(fails, error)


def calls() -> list[Kind]:
    """The kinds of the calls since then; they are no longer watched."""
    found = watched.pop()
    found.close()
    return found.kinds


def add_routes(_demo: Any, app: Any) -> None:
    app.add_api_route("/ti-train-test/watch-calls", watch, methods=["POST"])
    app.add_api_route("/ti-train-test/calls", calls, methods=["POST"])


script_callbacks.on_app_started(add_routes)
