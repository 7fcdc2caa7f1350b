"""Very many trainings one after another in one ComfyUI, and a queue of which half is cancelled: nothing may grow."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import workflows
from comfyui_server import Server, failure

from ti_train.formats import load_embedding

from .long import IN_USE, Look

PROBE = Path(workflows.__file__).with_name("probe")
WARM = 50  # trainings after which nothing grows any more
NAMES = 20  # which are trained again and again
CACHED = 5000  # objects: the last hundreds of patterns and addresses that Python and aiohttp keep


@dataclass(frozen=True)
class State:
    """What a server has after so many trainings. process: see Look, of its user's folder: the records of runs.

    objects, types, tensors: of Python's garbage collector. kept: items in the pack's modules.
    unfinished: files of no kept kind.
    """

    trainings: int
    process: Look
    objects: int
    types: dict[str, int]
    tensors: int
    kept: int
    unfinished: list[str]


class Abused:
    """A ComfyUI with a tiny model of Stable Diffusion XL."""

    def __init__(self, comfyui: Path, base: Path) -> None:
        (base / "custom_nodes").mkdir(parents=True)
        (base / "custom_nodes" / "probe").symlink_to(PROBE, target_is_directory=True)
        self.base, self.embeddings = base, base / "models" / "embeddings"
        self.trainings, self.looks = 0, count()
        self.server = Server(comfyui, base)

    def training(self, name: str, images: Path, steps: int = 2, seed: int = 0) -> dict[str, Any]:
        """images: a folder, which is copied into the input directory."""
        folder = self.base / "input" / "images"
        if not folder.exists():
            folder.symlink_to(images, target_is_directory=True)
        given = {"name": name, "steps": steps, "seed": seed, "preview_every": steps, "learning_rate": 0.01}
        workflow = workflows.training(folder="images", **given, if_exists="replace")
        workflow["options"]["inputs"] |= {"preview_steps": 1, "resolution": 32, "batch_size": 4}
        return workflow | {"model": workflows.node("ProbeFamily", family="sdxl-vpred")}

    def state(self) -> State:
        """Without ComfyUI's own list of what has run."""
        name = f"{next(self.looks)}.json"
        self.server.post("/history", {"clear": True})
        self.server.run({"look": workflows.node("ProbeObjects", file=name)})
        found = json.loads((self.base / "output" / name).read_text())
        look = Look.at(self.trainings, self.server.process.pid, self.base / "user")
        return State(self.trainings, look, **found, unfinished=sorted(self.unfinished()))

    def unfinished(self) -> Iterator[str]:
        for folder in (self.embeddings, self.base / "user" / "ti_train"):
            yield from (path.name for path in folder.rglob(".*") if path.is_file())

    def vectors(self, name: str) -> dict[str, Any]:
        """Of an embedding, as lists."""
        loaded = load_embedding(self.embeddings / f"{name}.safetensors")
        return {encoder: vectors.tolist() for encoder, vectors in loaded.vectors.items()}


def one_after_another(abused: Abused, images: Path, times: int) -> Iterator[State]:
    """Trains; the state at every fiftieth."""
    for number in range(1, times + 1):
        abused.server.run(abused.training(f"word{number % NAMES}", images, seed=number))
        abused.trainings += 1
        if number % WARM == 0 or number == times:
            yield abused.state()


def half_cancelled(abused: Abused, images: Path, times: int, draws: int) -> tuple[dict[str, int], list[str]]:
    """Queues trainings and cancels half of them at random moments; how many ended how, and what is wrong."""
    draw, server = random.Random(draws), abused.server
    queued = [f"queued{number}" for number in range(times)]
    names = {server.queue(abused.training(name, images, 20, seed)): name for seed, name in enumerate(queued)}
    for prompt in draw.sample(list(names), times // 2):
        time.sleep(draw.uniform(0, 1))
        running = [entry[1] for entry in server.get("/queue")["queue_running"]]
        if running and draw.random() < 0.5:
            server.post("/interrupt", {"prompt_id": running[0]})
        else:
            server.post("/queue", {"delete": [prompt]})
    while any(server.get("/queue").values()):
        time.sleep(0.5)
    history, wrong, ended = server.get("/history"), [], {"trained": 0, "interrupted": 0, "deleted": 0}
    for prompt, name in names.items():
        how = failure(history[prompt]) if prompt in history else "deleted"
        there = (abused.embeddings / f"{name}.safetensors").is_file()
        if how not in ("", "interrupted", "deleted"):
            wrong.append(f"{name}: {how}")
        elif (how == "" and not there) or (how == "deleted" and there):
            wrong.append(f"{name} is {'' if there else 'not '}there: {how or 'trained'}")
        else:
            ended[how or "trained"] += 1
    return ended, wrong


def grown(first: State, last: State) -> list[str]:
    """What is wrong: what has grown from one state to another."""
    wrong = [f"left behind: {name}" for name in last.unfinished]
    for what, before, after, allowed in (
        ("MiB of memory", first.process.memory, last.process.memory, 0.1 * first.process.memory),
        ("threads", first.process.threads, last.process.threads, 0),
        ("open files", first.process.open_files, last.process.open_files, IN_USE),
        ("files of records", first.process.files, last.process.files, 20),
        ("objects", first.objects, last.objects, CACHED),
        ("tensors", first.tensors, last.tensors, 0),
        ("items in the pack's modules", first.kept, last.kept, 0),
    ):
        if after > before + allowed:
            wrong.append(f"{after - before} more {what}: {before}, then {after}")
    if wrong:
        more = {kind: number - first.types.get(kind, 0) for kind, number in last.types.items()}
        most = sorted(more.items(), key=lambda each: -each[1])[:12]
        wrong.append("Of these types: " + ", ".join(f"{number} {kind}" for kind, number in most))
    return wrong
