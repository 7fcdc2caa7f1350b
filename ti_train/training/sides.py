"""The side in pixels at which a run trains its images: the user's, or the model's own as far as a step fits."""

from __future__ import annotations

import math
from dataclasses import replace

from ..device import total_memory
from ..errors import UserError
from ..host import Host
from ..text import Remarks
from .config import TrainConfig
from .step_memory import GIB, LEAST_SIDE, TEXT, activations


def side_for(host: Host, config: TrainConfig, remarks: Remarks, largest: float = math.inf) -> int:
    """The side of a square image. Appends to `remarks` why it is not the model's own, unless the user chose it.

    largest: that of the largest image. Where no image is made smaller there is nothing to report. Raises UserError for
    a resolution that the model does not take.
    """
    if config.resolution % host.unit:
        near = max(host.unit, round(config.resolution / host.unit) * host.unit)
        raise UserError(
            f"resolution is {config.resolution}; for this model it must be a multiple of {host.unit}: its VAE and "
            f"its patches need that. Use {near}, or 0 for the model's own."
        )
    if config.resolution:
        return config.resolution
    memory = total_memory(host.device)
    side = fitting_side(memory, host, config) if memory else host.resolution
    if memory and side < min(host.resolution, largest):
        remarks.append(
            f"The images are trained at {side} pixels instead of the model's {host.resolution}: a step at these does "
            f"not fit into {memory / GIB:.1f} GiB of GPU memory. Set resolution to choose another."
        )
    return side


def fitting_side(memory: int, host: Host, config: TrainConfig) -> int:
    """The model's own side, or less so that a step with one image fits into so many bytes beside weights elsewhere."""
    one = replace(config, batch_size=1, gradient_checkpointing=True)
    needed = activations(host, (host.resolution / host.compression) ** 2, one)
    if not needed or needed + TEXT <= memory:
        return host.resolution
    fits = int(host.resolution * math.sqrt(max(0.0, memory - TEXT) / needed)) // 64 * 64
    return min(host.resolution, max(LEAST_SIDE, fits))
