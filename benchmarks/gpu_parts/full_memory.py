"""Part 5: batch sizes until the memory is full. Does the run go on, and is the memory given back?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from ti_train.data.dataset import Dataset, encode_pictures
from ti_train.errors import UserError
from ti_train.events import Done, Warning
from ti_train.training.config import TrainConfig
from ti_train.training.out_of_memory import train_in_memory

from .accelerator import allocated, give_back, in_gib
from .finding import Finding, Options
from .random_models import NAMES, random_host
from .runs import noise_pictures

SIDE, SMALL_SIDE = 512, 64
LARGEST, LARGEST_WITHOUT_A_CARD = 1024, 4  # a CPU's memory is not filled on purpose
LEFT_OVER = 64 * 2**20  # bytes that a library may keep after its first use


def measure(options: Options) -> Iterator[Finding]:
    host = random_host(options, "sd15")
    dataset = encode_pictures(host, noise_pictures(SMALL_SIDE if options.small else SIDE))
    batch, largest = 1, LARGEST_WITHOUT_A_CARD if host.device.type == "cpu" else LARGEST
    while batch <= largest:
        finding = two_steps(options, host, dataset, batch)
        yield finding
        if finding.promises:
            return
        batch *= 2


def two_steps(options: Options, host: Any, dataset: Dataset, batch: int) -> Finding:
    """Promises are in the finding where the memory was full."""
    give_back(host.device)
    before = allocated(host.device)
    config = TrainConfig(name="word", init="photo", steps=2, batch_size=batch, evaluate_every=2)
    release = partial(give_back, host.device)
    said, done = [], False
    try:
        with closing(train_in_memory(host, dataset, config, Path(options.scratch) / "full", release=release)) as events:
            for event in events:
                said += [event.message] if isinstance(event, Warning) else []
                done |= isinstance(event, Done)
    except UserError as error:
        said.append(str(error))
    give_back(host.device)
    after = allocated(host.device)
    figures: dict[str, str | float] = {"GiB before": in_gib(before), "GiB after": in_gib(after)}
    figures |= {"said": " ".join(said)} if said else {}
    full = any("out of memory" in line for line in said)
    given_back = before is None or after is None or after <= before + LEFT_OVER
    case = f"{NAMES['sd15']}, batch {batch}"
    return Finding(
        case, figures | {"complete": "yes" if done else "no"}, {"memory": done and given_back} if full else {}
    )
