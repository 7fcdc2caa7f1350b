"""Resuming with smaller micro-batches after the GPU ran out of memory."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path

from ..data.dataset import Dataset
from ..device import empty_cache, is_out_of_memory, out_of_memory_message, total_memory
from ..errors import PassingError
from ..events import Event, Preview, Step, Warning
from ..host import Host
from .config import TrainConfig
from .loop import train
from .passes import ALONE, Passes
from .step_memory import doubtful, with_less_memory, within


def train_in_memory(
    host: Host,
    dataset: Dataset,
    config: TrainConfig,
    folder: Path,
    resume: bool = False,
    *,
    release: Callable[[], object] | None = None,
    stop: Callable[[], bool] = lambda: False,
    passes: Passes = ALONE,
    replaces: bool = True,
) -> Generator[Event, None, None]:
    """The events of train(). After an out-of-memory error it is resumed with smaller micro-batches, after a Warning.

    release: frees the host's unused memory; None: PyTorch's cache. stop, passes, replaces: see train(). Raises
    PassingError if the smallest micro-batch does not fit.
    """
    free_unused = release or partial(empty_cache, host.device)
    memory = total_memory(host.device)
    fitting = within(memory, host, dataset, config)
    yield from map(Warning, doubtful(memory, host, dataset, fitting))
    if fitting != config:
        config = fitting
        yield Warning(f"A step of this size does not fit into the GPU's memory. {with_these(config, 'Training')}")
    last = before = -1  # the last step that was yielded; the same before the current attempt
    told: set[Warning] = set()  # another attempt repeats what is about the settings
    while True:
        try:
            attempt = train(host, dataset, config, folder, resume, stop=stop, passes=passes, replaces=replaces)
            with closing(attempt) as events:
                for event in events:
                    if isinstance(event, Step | Preview) and event.step <= before:
                        continue
                    if isinstance(event, Warning):
                        if event in told:
                            continue
                        told.add(event)
                    last = event.step if isinstance(event, Step) else last
                    yield event
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            smaller = with_less_memory(config)
            if smaller == config:
                raise PassingError(out_of_memory_message(error, does_not_fit(dataset.resolution))) from None
            message = out_of_memory_message(error, with_these(smaller, "Continuing"))
        free_unused()  # out of the except clause, whose exception holds all that the step held
        config, before, resume = smaller, last, resume or last > 0
        yield Warning(message)


def with_these(config: TrainConfig, what: str) -> str:
    return (
        f"{what} with gradient checkpointing, batch size {config.batch_size} and gradient accumulation "
        f"{config.accumulation}. The result is the same; a step takes longer."
    )


def does_not_fit(resolution: int) -> str:
    return (
        f"Batch size 1 at {resolution} pixels does not fit, even with gradient checkpointing. "
        "Use a lower resolution, or close other programs that use the memory."
    )
