"""A training that goes on when the GPU's memory is full: from its last step, in passes that need less."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..data.dataset import Dataset
from ..device import empty_cache, is_out_of_memory, out_of_memory_message
from ..errors import UserError
from ..events import Event, Preview, Step, Warning
from ..host import Host
from .config import TrainConfig
from .loop import train


def train_in_memory(
    host: Host,
    dataset: Dataset,
    config: TrainConfig,
    folder: Path,
    resume: bool = False,
    release: Callable[[], object] | None = None,
) -> Generator[Event, None, None]:
    """The events of train(), which is begun anew, needing less, as often as the memory is full; a Warning tells so.

    release: gives the host's unused memory back; None: what PyTorch keeps of it. Raises UserError where the least does
    not fit.
    """
    last = before = -1  # the last step that was told, altogether and before this beginning
    while True:
        try:
            with closing(train(host, dataset, config, folder, resume)) as events:
                for event in events:
                    if isinstance(event, Step | Preview) and event.step <= before:
                        continue
                    last = event.step if isinstance(event, Step) else last
                    yield event
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            smaller = with_less_memory(config)
            if smaller == config:
                raise UserError(out_of_memory_message(error, does_not_fit(dataset.resolution))) from None
            told = out_of_memory_message(error, retrying(smaller))
        (
            release or partial(empty_cache, host.device)
        )()  # out of the except clause, whose exception holds all that the step held
        config, before, resume = smaller, last, resume or last >= 0
        yield Warning(told)


def with_less_memory(config: TrainConfig) -> TrainConfig:
    """Fewer pictures a pass, as many a step."""
    size = config.batch_size // 2 if config.batch_size % 2 == 0 else 1
    return replace(config, gradient_checkpointing=True, batch_size=size, accumulation=config.effective_batch // size)


def retrying(config: TrainConfig) -> str:
    return (
        f"Going on with gradient checkpointing and {config.batch_size} picture(s) a pass, {config.accumulation} passes "
        "a step. The result is the same; a step takes longer."
    )


def does_not_fit(resolution: int) -> str:
    return (
        f"It is too small for one picture of {resolution} pixels at a time, even with gradient checkpointing. "
        "Give a lower resolution, or close other programs that use the memory."
    )
