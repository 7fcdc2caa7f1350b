"""Part 4: one run twice, and stopped and resumed, with deterministic kernels and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from ti_train.data.dataset import Dataset, encode_pictures, find_pictures, read_pictures
from ti_train.errors import UserError
from ti_train.events import Done, Step
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.training.config import TrainConfig
from ti_train.training.loop import train

from .demo import CONCEPT, DEMO
from .finding import Finding, Options
from .random_models import NAMES, random_host
from .runs import noise_pictures

SIDE, SMALL_SIDE = 512, 64


def measure(options: Options) -> Iterator[Finding]:
    demo = DiffusersHost.load(DEMO / "model", options.device)
    pictures = encode_pictures(demo, read_pictures(find_pictures(DEMO / "concepts" / CONCEPT), demo.resolution, []))
    steps = 8 if options.quick or options.small else 40
    yield from both_ways(options, "demo", demo, pictures, steps)
    host = random_host(options, "sd15")
    pictures = encode_pictures(host, noise_pictures(SMALL_SIDE if options.small else SIDE))
    yield from both_ways(options, NAMES["sd15"], host, pictures, 4 if options.quick or options.small else 10)


def both_ways(options: Options, case: str, host: Any, dataset: Dataset, steps: int) -> Iterator[Finding]:
    for deterministic in (False, True):
        folder, told = Path(options.scratch) / f"repeat-{case}-{deterministic}", "yes" if deterministic else "no"
        config = TrainConfig(name="word", init="photo", steps=steps, evaluate_every=steps, deterministic=deterministic)
        try:
            once, twice = (learn(host, dataset, config, folder / name) for name in ("once", "twice"))
            resumed = learn(host, dataset, config, folder / "resumed", stop_after=steps // 2)
        except UserError as error:  # a kernel of which there is no deterministic one
            yield Finding(f"{case}, deterministic: {told}", {"said": str(error)})
            continue
        apart, after_stop = difference(once, twice), difference(once, resumed)
        figures: dict[str, str | float] = {
            "steps": steps,
            "largest difference of two runs": apart,
            "of stopped and resumed": after_stop,
            "largest component of the vectors": difference(once, {e: v * 0 for e, v in once.items()}),
        }
        # where two runs differ by themselves, a resumed one may differ as they do
        promises = {"resumes": after_stop == 0 if apart == 0 else after_stop <= 100 * apart}
        promises |= {"deterministic": apart == after_stop == 0} if deterministic else {}
        yield Finding(f"{case}, deterministic: {told}", figures, promises)


def learn(
    host: Any, dataset: Dataset, config: TrainConfig, folder: Path, stop_after: int = 0
) -> dict[str, torch.Tensor]:
    """The vectors after all steps; stop_after: the step after which the run is stopped, to be resumed anew."""
    if stop_after:
        with closing(train(host, dataset, config, folder)) as events:
            next(event for event in events if isinstance(event, Step) and event.step == stop_after)
    with closing(train(host, dataset, config, folder, resume=bool(stop_after))) as events:
        (done,) = (event for event in events if isinstance(event, Done))
    return dict(done.embedding.vectors)


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[encoder] - other[encoder]).abs().max()) for encoder in one)
