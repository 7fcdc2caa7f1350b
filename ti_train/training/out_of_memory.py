"""A training that goes on when the GPU's memory is full: from its last step, in passes that need less."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from ..data.dataset import Dataset
from ..errors import UserError
from ..events import Event, Step, Warning
from ..host import Host
from .config import TrainConfig
from .loop import train


def train_in_memory(
    host: Host,
    dataset: Dataset,
    config: TrainConfig,
    folder: Path,
    resume: bool = False,
    release: Callable[[], object] = torch.cuda.empty_cache,
) -> Generator[Event, None, None]:
    """The events of train(), which is begun anew once, needing less, when the memory is full; a Warning tells so.

    release: gives the host's unused memory back. Raises UserError where the memory stays full.
    """
    told = -1  # the last step that was told
    try:
        with closing(train(host, dataset, config, folder, resume)) as events:
            for event in events:
                told = event.step if isinstance(event, Step) else told
                yield event
        return
    except torch.cuda.OutOfMemoryError as error:
        smaller = needing_less(config)
        if smaller == config:
            raise still_full(config, dataset, error) from None
    release()  # out of the except clause, whose exception holds all that the step held
    yield Warning(
        f"The GPU's memory is full: going on with gradient checkpointing and {smaller.batch_size} picture(s) a pass, "
        f"{smaller.accumulation} passes a step. The result is the same; a step takes longer."
    )
    try:
        with closing(train(host, dataset, smaller, folder, resume or told >= 0)) as events:
            for event in events:
                if not isinstance(event, Step) or event.step > told:
                    yield event
    except torch.cuda.OutOfMemoryError as error:
        raise still_full(smaller, dataset, error) from None


def needing_less(config: TrainConfig) -> TrainConfig:
    """Fewer pictures a pass, as many a step."""
    size = config.batch_size // 2 if config.batch_size % 2 == 0 else 1
    return replace(config, gradient_checkpointing=True, batch_size=size, accumulation=config.effective_batch // size)


def still_full(config: TrainConfig, dataset: Dataset, error: Exception) -> UserError:
    return UserError(
        f"The GPU's memory is full even with gradient checkpointing and {config.batch_size} picture(s) of "
        f"{dataset.resolution} pixels a pass. Give a batch size of 1 or a lower resolution, or close other programs "
        f"that use the GPU. ({error})"
    )
