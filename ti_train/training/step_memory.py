"""An estimate of the memory that a training step needs besides the weights, and a warning if less is free.

For hosts that free memory on request, and for Windows, where the driver silently uses system memory when the GPU's is
exhausted; elsewhere that is an error, handled by out_of_memory.py.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from ..data.dataset import Dataset
from ..host import Host
from .config import TrainConfig

GIB = 2**30
# width of the text conditioning -> bytes per position of an image's latents in half precision, with and without
# gradient checkpointing. Measured with benchmarks/memory.py.
BYTES_PER_LATENT = {
    768: (62_000, 205_000),  # Stable Diffusion 1
    1024: (62_000, 205_000),  # 2: the same U-Net with wider text
    2048: (46_000, 345_000),  # XL
}
TEXT = 0.4 * GIB  # bytes: activations of the text encoders, and tables cast to fp32


def step_memory(host: Host, dataset: Dataset, config: TrainConfig) -> int:
    """Bytes that a step needs; 0 for a family without measurements."""
    width = sum(host.widths.values())
    if width not in BYTES_PER_LATENT:
        return 0
    positions = max(picture.mean.shape[-2] * picture.mean.shape[-1] for picture in dataset.pictures)
    size = 2 if config.dtype == "float32" else 1
    picture = positions * BYTES_PER_LATENT[width][not config.gradient_checkpointing] * size
    return int(TEXT + config.batch_size * (picture + host.kept_per_prompt))


def shortage(host: Host, dataset: Dataset, config: TrainConfig, system: str = sys.platform) -> list[str]:
    """A warning if a step needs more than is free and the driver would not raise an error. The weights are loaded."""
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
        f"Batch size {fitting[0]} with gradient checkpointing would fit."
        if fitting
        else "Close other programs that use the GPU, or use a lower resolution."
    )
    return [
        f"A step needs about {needed / GIB:.1f} GiB of GPU memory besides the model, and {free / GIB:.1f} GiB are "
        f"free. Windows then uses system memory, and a step takes ten times as long. {advice}"
    ]
