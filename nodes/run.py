"""Driving the core's loop from a node: progress, previews, Cancel, and a second try when the memory is full."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import comfy.model_management as management
import comfy.utils
import torch
from PIL import Image
from server import PromptServer

from ..ti_train.config import TrainConfig
from ..ti_train.dataset import Dataset
from ..ti_train.embedding import Embedding
from ..ti_train.errors import UserError
from ..ti_train.hosts.base import Host
from ..ti_train.loop import Checkpoint, Done, Preview, Step, Warning, train

log = logging.getLogger("ti_train")
PREVIEW_SIDE = 512  # pixels, on the node while it runs
REDRAW = 0.5  # seconds


@dataclass
class Run:
    """What a training has brought so far."""

    steps: list[Step] = field(default_factory=list)
    previews: list[Image.Image] = field(default_factory=list)
    embedding: Embedding | None = None


def learn(host: Host, dataset: Dataset, config: TrainConfig, folder: Path, resume: bool, node: str) -> Run:
    """Trains to the end. When the memory is full, goes on once from the last step in a way that needs less."""
    run = Run()
    try:
        consume(host, dataset, config, folder, resume, run, node)
        return run
    except torch.cuda.OutOfMemoryError:
        smaller = needing_less(config)
    management.soft_empty_cache()
    log.warning(
        "The GPU's memory is full: going on with gradient checkpointing and %d picture(s) a pass, %d passes a step. "
        "The result is the same; a step takes longer.",
        smaller.batch_size,
        smaller.accumulation,
    )
    try:
        consume(host, dataset, smaller, folder, True, run, node)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"The GPU's memory is full even with gradient checkpointing and {smaller.batch_size} picture(s) of "
            f"{dataset.resolution} pixels a pass. Give batch_size 1 or a lower resolution in Training Options, or "
            f"close other programs that use the GPU. ({error})"
        ) from None
    return run


def needing_less(config: TrainConfig) -> TrainConfig:
    """Fewer pictures a pass, as many a step."""
    size = config.batch_size // 2 if config.batch_size % 2 == 0 else 1
    return replace(config, gradient_checkpointing=True, batch_size=size, accumulation=config.effective_batch // size)


def consume(host: Host, dataset: Dataset, config: TrainConfig, folder: Path, resume: bool, run: Run, node: str) -> None:
    """Runs the loop, gathering what it brings. Raises the host's interrupt after the step in which it came."""
    bar = comfy.utils.ProgressBar(config.steps, node_id=node)
    say = progress_text(config.steps, node)
    try:
        with closing(train(host, dataset, config, folder, resume)) as events:
            for event in events:
                if isinstance(event, Step):
                    run.steps.append(event)
                    bar.update_absolute(event.step, config.steps)
                    say(event)
                elif isinstance(event, Preview):
                    run.previews.append(event.image)
                    bar.update_absolute(event.step, config.steps, ("JPEG", event.image, PREVIEW_SIDE))
                elif isinstance(event, Warning):
                    log.warning(event.message)
                elif isinstance(event, Done):
                    run.embedding = event.embedding
                    log.info("Learnt '%s' in %.0f s: %s", config.name, event.seconds, event.path)
                elif isinstance(event, Checkpoint):
                    log.debug("Step %d is saved: %s", event.step, event.path)
                management.throw_exception_if_processing_interrupted()
    except management.InterruptProcessingException:
        kept = run.steps[-1].step if run.steps else 0
        log.warning(
            "Cancelled. Step %d of '%s' is kept in %s; if_exists = continue goes on from there.",
            kept,
            config.name,
            folder,
        )
        raise


def progress_text(steps: int, node: str) -> Callable[[Step], None]:
    """Writes step, loss and time left under the node, a few times a second at most."""
    server: Any = getattr(PromptServer, "instance", None)
    first: list[Step] = []
    shown, evaluation = 0.0, ""

    def say(step: Step) -> None:
        nonlocal shown, evaluation
        first[:] = first or [step]
        if step.evaluation is not None:
            evaluation = f", noise-free loss {step.evaluation:.4f}"
        if server is None or (monotonic() - shown < REDRAW and step.step < steps):
            return
        shown = monotonic()
        done, spent = step.step - first[0].step, step.seconds - first[0].seconds
        left = f", {spent / done * (steps - step.step):.0f} s left" if done else ""
        server.send_progress_text(f"step {step.step} of {steps}{evaluation}{left}", node)

    return say
