"""What a step holds of the device's memory besides the weights, and what is said where that is not free.

An estimate, for hosts that make room when they are told how much, and for Windows, whose driver moves memory to the
computer's when a GPU's is full, where elsewhere there is an error that out_of_memory.py answers.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from ..data.dataset import Dataset
from ..host import Host
from .config import TrainConfig

GIB = 2**30
# By the width of the text that the U-Net attends to: bytes for each place of a picture's latents, in half precision,
# with gradient checkpointing and without. Measured with benchmarks/memory.py.
A_PLACE = {
    768: (62_000, 205_000),  # Stable Diffusion 1
    1024: (62_000, 205_000),  # 2: the U-Net of 1 with wider text
    2048: (46_000, 345_000),  # XL
}
TEXT = 0.4 * GIB  # the text encoders' activations, and tables that a host casts to fp32


def step_memory(host: Host, dataset: Dataset, config: TrainConfig) -> int:
    """Bytes; 0 for a family that has not been measured."""
    width = sum(host.widths.values())
    if width not in A_PLACE:
        return 0
    places = max(picture.mean.shape[-2] * picture.mean.shape[-1] for picture in dataset.pictures)
    size = 2 if config.dtype == "float32" else 1
    picture = places * A_PLACE[width][not config.gradient_checkpointing] * size
    return int(TEXT + config.batch_size * (picture + host.kept_per_prompt))


def shortage(host: Host, dataset: Dataset, config: TrainConfig, system: str = sys.platform) -> list[str]:
    """A remark where the next step needs more than is free and the driver would not say so; weights are loaded."""
    if system != "win32" or host.device.type != "cuda":
        return []
    unused = torch.cuda.memory_reserved(host.device) - torch.cuda.memory_allocated(host.device)
    free, needed = torch.cuda.mem_get_info(host.device)[0] + unused, step_memory(host, dataset, config)
    if free >= needed:
        return []
    sizes = [size for size in (4, 2, 1) if size <= config.batch_size]
    smaller = [replace(config, gradient_checkpointing=True, batch_size=size) for size in sizes]
    fitting = [less.batch_size for less in smaller if step_memory(host, dataset, less) <= free]
    advice = (
        f"Gradient checkpointing with a batch size of {fitting[0]} would fit."
        if fitting
        else "Close other programs that use the GPU, or give a lower resolution."
    )
    return [
        f"A step needs about {needed / GIB:.1f} GiB of the GPU's memory besides the model, and {free / GIB:.1f} GiB "
        "are free. Windows does not stop there: it uses the computer's memory instead, and a step takes ten times as "
        f"long. {advice}"
    ]
