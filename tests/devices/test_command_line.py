"""The command line on a pretended CUDA device: every dtype, an interruption, sampling, and a memory that is full."""

from __future__ import annotations

import contextlib
import io
import shutil
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from devices.pretend_cuda import Card

STEPS = 4
SAMPLED = 16  # kernels of each command at which the memory is full
QUICK = ("--init", "toy", "--batch-size", "2", "--name", "my-toy")


def command(*given: object) -> dict[str, Any]:
    """The exit code of a command, and what it says; the code of an error that reaches the user is a traceback."""
    from ti_train.__main__ import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code: object = main([str(argument) for argument in given])
        except BaseException:
            code = traceback.format_exc()
    return {"code": code, "said": said.getvalue()}


class Commands:
    """The commands over one model and one set of pictures; each writes into a folder of its own."""

    def __init__(self, model: str, pictures: str, clip: str, folder: str) -> None:
        from tiny_clip import write_clip

        write_clip(Path(clip))
        self.model, self.pictures, self.folder = model, pictures, Path(folder)
        self.clip = Path(clip) / "weights.pt"

    def train(self, out: str, *more: object, steps: int = STEPS) -> dict[str, Any]:
        where = ("--model", self.model, "--images", self.pictures, "--out", self.folder / out)
        return command("train", *where, *QUICK, "--steps", steps, *more)

    def generate(self, out: str) -> dict[str, Any]:
        where = ("--model", self.model, "--embedding", self.word("float32"), "--out", self.folder / out)
        return command("generate", *where, "--prompt", "a *", "--number", "1", "--steps", "2")

    def evaluate(self, out: str) -> dict[str, Any]:
        (self.folder / "edits.txt").write_text("a red *", encoding="utf-8")
        where = ("--model", self.model, "--embedding", self.word("float32"), "--images", self.pictures)
        judge = ("--clip-model", "tiny-clip", "--clip-weights", self.clip, "--prompts", self.folder / "edits.txt")
        return command("evaluate", *where, *judge, "--number", "1", "--steps", "2", "--out", self.folder / out)

    def word(self, out: str) -> Path:
        return self.folder / out / "my-toy.safetensors"

    def vectors(self, out: str) -> list[float]:
        return load_file(self.word(out))["emb_params"].flatten().tolist() if self.word(out).exists() else []

    def step(self, out: str) -> int:
        """The last step that is kept."""
        from ti_train.formats import load_embedding

        return int(load_embedding(self.word(out)).provenance["step"])


def trainings(run: Commands) -> dict[str, Any]:
    """The same training on the CPU and on the card, in each dtype, and in other ways that must not matter."""
    ways = {
        "cpu": ("--dtype", "float32", "--device", "cpu"), "float32": ("--dtype", "float32"),
        "float16": ("--dtype", "float16"), "bfloat16": ("--dtype", "bfloat16"),
        "checkpointing": ("--dtype", "float32", "--gradient-checkpointing"),
        "deterministic": ("--dtype", "float32", "--deterministic"),
    }  # fmt: skip
    return {way: run.train(way, *options) | {"vectors": run.vectors(way)} for way, options in ways.items()}


def interrupted(run: Commands) -> dict[str, Any]:
    """Ctrl-C in the third step, while the second is not read yet; then resumed."""
    from tiny_host import at_forward, raising

    from ti_train.hosts.diffusers.host import DiffusersHost

    load = DiffusersHost.load
    with contextlib.ExitStack() as hooks:

        def loaded(*arguments: Any) -> DiffusersHost:
            host = load(*arguments)
            hooks.enter_context(at_forward(host.unet, [3], raising(KeyboardInterrupt())))
            return host

        DiffusersHost.load = loaded
        stopped = run.train("resumed", "--dtype", "float32")
    DiffusersHost.load = load
    kept = run.step("resumed")
    return {
        "stopped": stopped, "kept": kept, "resumed": run.train("resumed", "--dtype", "float32", "--resume"),
        "vectors": run.vectors("resumed"),
    }  # fmt: skip


def waits(run: Commands) -> dict[str, int]:
    """What the host waits for in a step after which nothing else is due: that of ten steps less that of four."""
    counted = []
    for steps in (STEPS, STEPS + 6):
        Card.seen.clear()
        run.train(f"waits-{steps}", "--dtype", "float16", steps=steps)
        counted.append({key: number for key, number in Card.seen.items() if key.startswith("WAIT")})
    few, many = counted
    return {key: (number - few.get(key, 0)) / 6 for key, number in many.items() if number != few.get(key, 0)}


def previews(run: Commands) -> dict[str, Any]:
    """Two sampling steps: what a preview shows is told elsewhere."""
    from ti_train.training import loop

    whole = loop.SampleRequest
    loop.SampleRequest = partial(whole, steps=2)
    done = run.train("previews", "--dtype", "float16", "--preview-prompt", "a *", "--preview-every", "3")
    loop.SampleRequest = whole
    names = sorted(path.name for path in (run.folder / "previews").glob("*-step*.png"))
    return done | {"files": names, "vectors": run.vectors("previews")}


def full_memory(run: Commands) -> list[dict[str, Any]]:
    """Each command with a memory that is full at one kernel, or from it on; a training goes on from an earlier one."""
    with contextlib.suppress(KeyError):
        Card.fail_at = None
    begun = run.folder / "resumed-at-2"

    def resume(out: str) -> dict[str, Any]:
        shutil.rmtree(run.folder / out, ignore_errors=True)
        shutil.copytree(begun, run.folder / out)
        done = run.train(out, "--dtype", "float32", "--resume")
        return done | {"kept": run.step(out), "vectors": run.vectors(out)}

    found = []
    for name, action in (("train", resume), ("generate", run.generate), ("evaluate", run.evaluate)):
        Card.seen.clear()
        action(f"{name}-counted")
        kernels = sum(number for key, number in Card.seen.items() if not key.startswith("WAIT"))
        for i in range(SAMPLED if name == "train" else SAMPLED // 2):
            first = 1 + kernels * i // SAMPLED
            count = 0

            def full(kernel: str, first: int = first, stays: bool = i % 2 == 1) -> bool:
                nonlocal count
                count += 1
                return count >= first and kernel not in ("copy_", "_to_copy") if stays else count == first

            Card.fail_at = full
            done = action(f"{name}-full-{i}")
            Card.fail_at = None
            found.append({"command": name, "kernel": first, "stays": i % 2 == 1, **done})
    return found


def look(model: str, pictures: str, clip: str, folder: str) -> dict[str, Any]:
    """All on one card: a process costs seconds."""
    torch.set_num_threads(1)
    run = Commands(model, pictures, clip, folder)
    import time

    t = [time.time()]

    def lap(x):
        t.append(time.time())
        print(round(t[-1] - t[-2], 1), "s", flush=True)
        return x

    return {
        "trainings": lap(trainings(run)), "interrupted": lap(interrupted(run)), "waits": lap(waits(run)), "previews": lap(previews(run)),
        "generate": lap(run.generate("pictures")), "evaluate": lap(run.evaluate("evaluation")),
    }  # fmt: skip
