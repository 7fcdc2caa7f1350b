"""The command line on a pretended CUDA device: every dtype, an interruption, sampling, and a memory that is full."""

from __future__ import annotations

import contextlib
import io
import shutil
import traceback
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from devices.pretend_cuda import Card
from devices.runner import on_card
from safetensors.torch import load_file

STEPS = 4
SAMPLED = 6  # kernels of a training at which the memory is full
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

    def __init__(self, model: str, pictures: str, folder: str) -> None:
        from tiny_clip import write_clip

        self.model, self.pictures, self.folder = model, pictures, Path(folder)
        self.clip = write_clip(self.folder)

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


def stop(run: Commands, out: str, forward: int) -> dict[str, Any]:
    """Ctrl-C in a step's forward pass, counted from 1: the step before it is not read yet."""
    from tiny_host import at_forward, raising

    from ti_train.hosts.diffusers.host import DiffusersHost

    load = DiffusersHost.load
    with contextlib.ExitStack() as hooks:

        def loaded(*arguments: Any) -> DiffusersHost:
            host = load(*arguments)
            hooks.enter_context(at_forward(host.unet, [forward], raising(KeyboardInterrupt())))
            return host

        DiffusersHost.load = loaded
        try:
            return run.train(out, "--dtype", "float32") | {"kept": run.step(out)}
        finally:
            DiffusersHost.load = load


def resumed(run: Commands) -> dict[str, Any]:
    stopped = stop(run, "resumed", forward=3)
    return (
        {"stopped": stopped}
        | run.train("resumed", "--dtype", "float32", "--resume")
        | {"vectors": run.vectors("resumed")}
    )


def waits(run: Commands) -> dict[str, float]:
    """What the host waits for in a step after which nothing is due: that of seven steps less that of four."""
    counted = []
    for steps in (STEPS, STEPS + 3):
        Card.seen.clear()
        run.train(f"waits-{steps}", "--dtype", "float16", steps=steps)
        counted.append(Card.seen.copy())
    few, many = counted
    return {key: (many[key] - few[key]) / 3 for key in many if key.startswith("WAIT") and many[key] != few[key]}


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
    """Each command with a memory that is full at one kernel, or from it on; a training goes on from its second step."""
    begun = run.folder / "begun"
    stop(run, "begun", forward=4)

    def train(out: str) -> dict[str, Any]:
        shutil.copytree(begun, run.folder / out)
        done = run.train(out, "--dtype", "float32", "--resume")
        return done | {"kept": run.step(out), "vectors": run.vectors(out)}

    found = []
    for name, action, tries in (
        ("train", train, SAMPLED),
        ("generate", run.generate, 2),
        ("evaluate", run.evaluate, 2),
    ):
        asked: list[str] = []
        Card.fail_at = asked.append  # answers None: there is room
        action(f"{name}-counted")
        for i in range(tries):
            stays = i % 2 == 1
            Card.fail_at = full_at(1 + len(asked) * i // tries, stays)
            done = action(f"{name}-full-{i}")
            Card.fail_at = None
            found.append({"command": name, "try": i, "stays": stays} | done)
    return found


def full_at(first: int, stays: bool) -> Callable[[str], bool]:
    """The memory is full at one kernel, or from it on; reading back needs no memory of a card."""
    kernels = count(1)

    def full(name: str) -> bool:
        number = next(kernels)
        return number >= first and name not in ("copy_", "_to_copy") if stays else number == first

    return full


def look(model: str, pictures: str, folder: str) -> dict[str, Any]:
    """All on one card: a process costs seconds."""
    torch.set_num_threads(1)
    run = Commands(model, pictures, folder)
    return {
        "trainings": trainings(run), "resumed": resumed(run), "waits": waits(run), "previews": previews(run),
        "generate": run.generate("pictures"), "evaluate": run.evaluate("evaluation"), "full": full_memory(run),
    }  # fmt: skip


@pytest.fixture(scope="module")
def found(pipeline_folder, pictures, tmp_path_factory) -> dict[str, Any]:
    pytest.importorskip("open_clip")
    answer: dict[str, Any] = on_card(look, pipeline_folder, pictures, tmp_path_factory.mktemp("card"), gib=1)
    return answer


def differ(some: list[float], others: list[float]) -> float:
    assert len(some) == len(others) > 0
    return max(abs(a - b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize(
    ("way", "by"),
    [("float32", 1e-6), ("checkpointing", 1e-6), ("deterministic", 1e-6), ("float16", 1e-3), ("bfloat16", 1e-3)],
)
def test_the_card_learns_what_the_cpu_learns(found, way, by):
    done = found["trainings"]
    assert [done[way]["code"], done["cpu"]["code"]] == [0, 0], done[way]
    assert differ(done[way]["vectors"], done["cpu"]["vectors"]) < by
    expected = ("have a caption, which the templates", "is not better than its initial vectors")  # in three steps
    warned = [line for line in done[way]["said"].splitlines() if "Warning" in line]
    assert all(any(text in line for text in expected) for line in warned), warned


def test_an_interrupted_training_keeps_what_was_told_and_resumes_to_the_same_word(found):
    done = found["resumed"]
    assert done["stopped"]["code"] == 130
    assert "Step 1 is saved in" in done["stopped"]["said"]
    assert done["stopped"]["kept"] == 1
    assert done["code"] == 0, done
    assert done["vectors"] == found["trainings"]["float32"]["vectors"]


def test_a_step_waits_for_its_numbers_once_and_for_nothing_else(found):
    assert found["waits"] == {"WAIT for an event": 1}


def test_previews_are_sampled_and_change_nothing(found):
    done = found["previews"]
    assert done["code"] == 0, done
    assert done["files"] == [f"my-toy-step0000{step}-0.png" for step in (0, 3, 4)]
    assert done["vectors"] == found["trainings"]["float16"]["vectors"]


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_samples(found, command):
    assert found[command]["code"] == 0, found[command]


def test_a_memory_that_is_full_ends_in_success_or_in_a_sentence(found):
    for done in found["full"]:
        assert done["code"] in (0, 1), done
        assert "Traceback" not in done["said"], done
        if done["code"]:
            assert done["said"].splitlines()[-1].startswith("ti_train: The GPU ran out of memory. "), done
    assert {done["code"] for done in found["full"] if done["stays"]} == {1}
    assert {done["code"] for done in found["full"]} == {0, 1}


def test_a_memory_that_is_full_loses_no_step(found):
    whole = found["trainings"]["float32"]["vectors"]
    for done in [done for done in found["full"] if done["command"] == "train"]:
        assert done["kept"] >= 2, done
        if done["code"] == 0:
            assert differ(done["vectors"], whole) < 1e-4, "smaller passes round otherwise"
