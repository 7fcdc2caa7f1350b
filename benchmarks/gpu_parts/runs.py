"""Trainings that are measured: pictures of noise, and runs that neither evaluate nor save while they are timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ti_train.data.picture import Picture
from ti_train.events import Step
from ti_train.training.config import TrainConfig
from ti_train.training.loop import train

NEVER = 10**6


def noise_pictures(side: int, count: int = 5) -> list[Picture]:
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(count)]
    return [Picture.cropped(str(i), image, (side, side)) for i, image in enumerate(images)]


def endless(**settings: Any) -> TrainConfig:
    never = {"steps": NEVER, "evaluate_every": NEVER, "checkpoint_every": NEVER}
    return TrainConfig(name="word", init="photo", **never | settings)


@contextmanager
def stepping(host: Any, dataset: Any, folder: Path, **settings: Any) -> Iterator[Iterator[Step]]:
    """The steps of an endless training, from the first."""
    with closing(train(host, dataset, endless(**settings), folder)) as events:
        steps = (event for event in events if isinstance(event, Step))
        next(steps)  # step 0, the untrained word
        yield steps


def step_flops(host: Any, dataset: Any, folder: Path, **settings: Any) -> float:
    """Floating-point operations of a step. A checkpoint after it keeps a GPU from being given the next one as well."""
    with stepping(host, dataset, folder, checkpoint_every=1, **settings) as events:
        with FlopCounterMode(display=False) as counter:  # the first step: it sees nothing of a recorded graph
            next(events)
        return float(counter.get_total_flops())
