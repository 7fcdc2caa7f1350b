"""An estimate of the memory that a training step needs besides the weights, and what follows from it before a run.

Hosts free that much; micro-batches that cannot fit are made smaller at once. On Windows, where the driver silently
uses system memory when the GPU's is exhausted, less free memory is a warning; elsewhere it is an error, handled by
out_of_memory.py.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace

from ..data.dataset import Dataset
from ..device import free_memory
from ..errors import UserError
from ..host import Host
from .config import TrainConfig

GIB = 2**30
ESTIMATED = "This is only an estimate, not measured for this model family, so training is tried."
LEAST_SIDE = 256  # pixels: below this, these models no longer recognise the subject
LESS = 0.75  # times as much, if a U-Net's feed-forwards are computed again, as adapters do where less is free
TEXT = 0.4 * GIB  # bytes: activations of the text encoders, and tables cast to fp32


def step_memory(host: Host, dataset: Dataset, config: TrainConfig) -> int:
    """Bytes that a step needs; 0 for a family without measurements."""
    return int(TEXT + images_memory(host, dataset, config)) if host.bytes_per_latent else 0


def least_memory(host: Host, dataset: Dataset, config: TrainConfig) -> float:
    """Bytes that a step needs if as much of it is computed again as its adapter can."""
    less = LESS if host.memory_measured and not config.gradient_checkpointing else 1.0
    return less * step_memory(host, dataset, config)


def images_memory(host: Host, dataset: Dataset, config: TrainConfig) -> int:
    """Bytes of the denoiser's activations, which grow with the images; 0 for a family without measurements."""
    positions = max(picture.mean.shape[-2] * picture.mean.shape[-1] for picture in dataset.pictures)
    return activations(host, positions, config)


def activations(host: Host, positions: float, config: TrainConfig) -> int:
    """Bytes of the same for latents of so many positions."""
    if host.bytes_per_latent is None:
        return 0
    checkpointed, plain = host.bytes_per_latent
    return int(config.batch_size * positions * (checkpointed if config.gradient_checkpointing else plain))


def within(memory: int | None, host: Host, dataset: Dataset, config: TrainConfig) -> TrainConfig:
    """The config with micro-batches so small that a step fits into the GPU's memory of so many bytes, None if unknown.

    Raises UserError if no step does, by figures that were measured.
    """
    while memory and images_memory(host, dataset, config) > memory:
        smaller = with_less_memory(config)
        if smaller == config and host.memory_measured:
            raise UserError(too_small(memory, host, dataset, config))
        if smaller == config:
            return config
        config = smaller
    return config


def doubtful(memory: int | None, host: Host, dataset: Dataset, config: TrainConfig) -> list[str]:
    """A warning if a step of what `within` has answered may not fit."""
    if not memory or images_memory(host, dataset, config) <= memory:
        return []
    return [f"{too_small(memory, host, dataset, config)} {ESTIMATED}"]


def with_less_memory(config: TrainConfig) -> TrainConfig:
    """Half the images per forward pass, as many per step, and gradient checkpointing."""
    size = config.batch_size // 2 if config.batch_size % 2 == 0 else 1
    return replace(config, gradient_checkpointing=True, batch_size=size, accumulation=config.effective_batch // size)


def too_small(memory: int, host: Host, dataset: Dataset, config: TrainConfig) -> str:
    needed, side = images_memory(host, dataset, config), config.resolution or dataset.resolution
    fits = int(side * math.sqrt(max(0.0, memory - TEXT) / needed)) // 64 * 64
    advice = f"Use a resolution of at most {fits} pixels." if fits >= LEAST_SIDE else "Use a smaller model."
    return (
        f"This model does not train at {side} pixels here: a step with one image and gradient checkpointing needs "
        f"about {needed / GIB:.1f} GiB of GPU memory besides the model's weights, and the GPU has "
        f"{memory / GIB:.1f} GiB. {advice}"
    )


def shortage(host: Host, dataset: Dataset, config: TrainConfig, system: str = sys.platform) -> list[str]:
    """A warning if a step needs more than is free and the driver would not raise an error. The weights are loaded."""
    if system != "win32":
        return []
    free, least = free_memory(host.device), least_memory(host, dataset, config)
    if free is None or free >= least:
        return []
    sizes = [size for size in (4, 2, 1) if size <= config.batch_size]
    smaller = [replace(config, gradient_checkpointing=True, batch_size=size) for size in sizes]
    fitting = [less.batch_size for less in smaller if step_memory(host, dataset, less) <= free]
    advice = (
        f"Batch size {fitting[0]} with gradient checkpointing would fit."
        if fitting
        else "Close other programs that use the GPU, or use a lower resolution."
    )
    return [
        f"A step needs about {least / GIB:.1f} GiB of GPU memory besides the model, and {free / GIB:.1f} GiB are "
        f"free. Windows then uses system memory, and a step takes ten times as long. {advice}"
    ]
