"""Part 2: a real ComfyUI in each of its memory modes: Train Embedding first of all, then KSampler on the same model.

The picture is compared with one by a model that is loaded anew, and that by another: as much as ComfyUI itself differs.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .demo import CONCEPT, DEMO
from .finding import ROUNDING, Finding, Options
from .random_models import ROOT, checkpoint_file

sys.path[1:1] = [str(ROOT / "tests" / "comfyui")]

import workflows  # noqa: E402
from comfyui_server import Server, failure  # noqa: E402

MODES = (  # those that a ComfyUI has; with DynamicVRAM, which it chooses by itself, --lowvram does nothing
    (),
    ("--disable-dynamic-vram",),
    ("--normalvram",),
    ("--highvram",),
    ("--disable-dynamic-vram", "--lowvram"),
)
WORD, SIDE, SMALL_SIDE = "gpu-word", 512, 64


def measure(options: Options) -> Iterator[Finding]:
    comfyui = Path(options.comfyui).resolve()
    os.environ["COMFYUI_PYTHON"] = options.comfyui_python or sys.executable
    checkpoint = checkpoint_file(options)
    for mode in modes(comfyui, options):
        try:
            yield in_mode(options, comfyui, checkpoint, mode)
        except (AssertionError, RuntimeError, OSError) as error:  # of this mode alone
            yield Finding(named(mode), {"said": str(error)[-1500:]}, {"comfyui": False})


def modes(comfyui: Path, options: Options) -> list[tuple[str, ...]]:
    if options.device == "cpu":
        return [("--cpu",)]
    known = (comfyui / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    there = (tuple(flag for flag in mode if f'"{flag}"' in known) for mode in MODES)
    return list(dict.fromkeys(there))


def named(mode: tuple[str, ...]) -> str:
    return "ComfyUI " + (" ".join(mode) or "as it starts by itself")


def in_mode(options: Options, comfyui: Path, checkpoint: Path, mode: tuple[str, ...]) -> Finding:
    base = Path(options.scratch) / "-".join(["comfyui", *mode])
    folder = base / "models" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / checkpoint.name).hardlink_to(checkpoint)
    shutil.copytree(DEMO / "concepts" / CONCEPT, base / "input" / CONCEPT)
    server = Server(comfyui, base, flags=mode)
    try:
        steps = 2 if options.small else 10
        began = time.perf_counter()
        history = server.wait(server.queue(learning(checkpoint.name, steps, options)))
        seconds = time.perf_counter() - began
        if failure(history):
            return Finding(named(mode), {"said": failure(history)}, {"comfyui": False})
        used = memory_used(server)
        pictures = []
        for anew in (False, True, True):
            if anew:
                server.post("/free", {"unload_models": True, "free_memory": True})
                time.sleep(2)  # the server does it when it next looks at its queue, and says nothing
            pictures.append(sampled(server, checkpoint.name, "a photo of a heart", options))
        words = [sampled(server, checkpoint.name, f"a photo of a embedding:{w}", options) for w in (WORD, "unknown")]
    finally:
        server.stop()
    apart, by_itself = difference(*pictures[:2]), difference(*pictures[1:])
    figures: dict[str, str | float] = {
        f"training of {steps} steps, with loading, s": seconds,
        "GiB of the card in use after it": used,
        "picture after training against a model loaded anew": apart,
        "two models loaded anew": by_itself,
    }
    return Finding(
        named(mode), figures, {"comfyui": difference(*words) > 0, "unchanged": apart <= by_itself + ROUNDING}
    )


def learning(checkpoint: str, steps: int, options: Options) -> workflows.Workflow:
    side = SMALL_SIDE if options.small else SIDE
    settings = {"steps": steps, "name": WORD, "preview_every": steps, "if_exists": "replace"}
    workflow = workflows.training(checkpoint, CONCEPT, initial_text="heart", **settings)
    return workflow | {"options": workflows.options(resolution=side)}


def picture(checkpoint: str, text: str, options: Options) -> workflows.Workflow:
    side = SMALL_SIDE if options.small else SIDE
    workflow = workflows.sampling(text, ["model", 1], "gpu", steps=8)
    workflow["empty"]["inputs"] |= {"width": side, "height": side}
    return workflow | {"model": learning(checkpoint, 1, options)["model"]}


def sampled(server: Server, checkpoint: str, text: str, options: Options) -> np.ndarray:
    outputs = server.run(picture(checkpoint, text, options))
    return np.asarray(Image.open(server.files(outputs, "save")[0]).convert("RGB")).astype(np.int16)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest, of 255."""
    return float(np.abs(one - other).max())


def memory_used(server: Server) -> float:
    (device, *_) = server.get("/system_stats")["devices"]
    return (device["vram_total"] - device["vram_free"]) / 2**30
