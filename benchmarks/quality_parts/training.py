"""Trains an embedding: with ti_train, or with diffusers' own script in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ti_train.data.dataset import encode_pictures, find_pictures, read_pictures
from ti_train.embedding import merge
from ti_train.events import Done
from ti_train.formats import load_embedding, save_embedding
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.training.config import TrainConfig
from ti_train.training.loop import train

from .arms import Arm
from .worlds import Concept, World

SCRIPT = "examples/textual_inversion/textual_inversion.py"
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Trained:
    """An embedding's file, the images seen until then, and the seconds that this took."""

    file: Path
    images: int
    seconds: float


def config_of(arm: Arm, concept: Concept, seed: int) -> TrainConfig:
    """The run of one of ti_train's arms."""
    given = dict(arm.options) | {"seed": seed, "checkpoint_seconds": 0, "checkpoint_every": 10**6}
    if concept.style:
        given["templates"] = "style"
    every = min(arm.marks) if arm.marks else None
    return TrainConfig.from_preset(arm.preset, name=concept.name, init=concept.init, copy_every=every, **given)


def ours(arm: Arm, host: DiffusersHost, concept: Concept, seed: int, folder: Path) -> Iterator[Trained]:
    """The embedding at each of the arm's marks, or at the end; the seconds of a mark are its share of the run's."""
    if arm.seeds > 1:
        yield mean_of_seeds(arm, host, concept, seed, folder)
        return
    config = config_of(arm, concept, seed)
    side = config.resolution or host.resolution
    dataset = encode_pictures(host, read_pictures(find_pictures(concept.folder), side, []), config.flip)
    (done,) = (event for event in train(host, dataset, config, folder) if isinstance(event, Done))
    total, batch = config.steps * config.effective_batch, config.effective_batch
    for images in arm.marks or (total,):
        copy = folder / f"{config.name}-steps" / f"{config.name}-{images // batch:06d}.safetensors"
        yield Trained(done.path if images == total else copy, images, done.seconds * images / total)


def mean_of_seeds(arm: Arm, host: DiffusersHost, concept: Concept, seed: int, folder: Path) -> Trained:
    """The mean of the vectors of several runs, as `merge` makes it."""
    single, seeds = replace(arm, seeds=1), range(arm.seeds * seed, arm.seeds * (seed + 1))
    words = [word for each in seeds for word in ours(single, host, concept, each, folder / str(each))]
    vectors = [load_embedding(word.file) for word in words]
    file = folder / f"{concept.name}.safetensors"
    save_embedding(merge(vectors, "sum", [1 / arm.seeds] * arm.seeds, concept.name), file)
    return Trained(file, sum(word.images for word in words), sum(word.seconds for word in words))


def images_of(arm: Arm, concept: Concept, seed: int) -> int:
    """The images that an arm without marks has seen at its end."""
    if arm.kind == "diffusers":
        return int(arm.options.get("train_batch_size", 16)) * int(arm.options.get("max_train_steps", 5000))
    config = config_of(arm, concept, seed)
    return config.steps * config.effective_batch * arm.seeds


def theirs(arm: Arm, script: Path, world: World, concept: Concept, seed: int, folder: Path) -> Iterator[Trained]:
    """The embedding of diffusers' script, which starts from a single token: the last one of the initial text."""
    images = folder / "images"
    images.mkdir(parents=True)
    for picture in find_pictures(concept.folder):  # the script opens whatever the folder has
        shutil.copy(picture, images)
    (vocabulary,) = (world.host.vocabulary(encoder) for encoder in world.host.widths)
    init = vocabulary.spell(vocabulary.tokenize(concept.init)[-1])
    given: dict[str, Any] = {
        "pretrained_model_name_or_path": world.model,
        "train_data_dir": images,
        "placeholder_token": "<word>",
        "initializer_token": init,
        "learnable_property": "style" if concept.style else "object",
        "resolution": world.host.resolution,
        "output_dir": folder,
        "seed": seed,
        "save_steps": 10**6,
    }
    words = [str(part) for name, value in (given | dict(arm.options)).items() for part in (f"--{name}", value)]
    began = time.perf_counter()
    command = [sys.executable, str(HERE / "run_diffusers.py"), str(script), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    yield Trained(folder / "learned_embeds.safetensors", images_of(arm, concept, seed), seconds)
