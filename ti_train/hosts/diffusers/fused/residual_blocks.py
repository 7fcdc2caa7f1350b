"""A residual block without a kernel for each bias and each sum.

The first convolution's bias and the time embedding are added within the norm behind them, the second's bias and the
shortcut's with the block's input.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .images import BiasedSum
from .layers import normalized


def is_usual(block: Any) -> bool:
    """Whether it computes what Stable Diffusion's do, which have a time embedding and keep an image's size."""
    kinds = block.time_embedding_norm, type(block.nonlinearity), block.output_scale_factor, block.skip_time_act
    return kinds == ("default", nn.SiLU, 1.0, False) and bool(block.time_emb_proj) and not block.up and not block.down


def fuse(block: Any) -> None:
    shortcut = block.conv_shortcut.bias if block.conv_shortcut else None
    first = block.conv1.bias + block.time_emb_proj.bias
    second = block.conv2.bias if shortcut is None else block.conv2.bias + shortcut
    block.forward = functools.partial(computed, block, first, second)


def computed(block: Any, first: Tensor, second: Tensor, x: Tensor, time: Tensor, *_: Any) -> Tensor:
    """x: [B, C, H, W]. time: [B, D]. first, second: the sums of the biases before the second norm, and behind it."""
    y = without_bias(block.conv1, normalized(block.norm1, x, silu=True))
    moved = F.linear(F.silu(time), block.time_emb_proj.weight, first)
    y = without_bias(block.conv2, normalized(block.norm2, y, silu=True, added=moved))
    kept = without_bias(block.conv_shortcut, x) if block.conv_shortcut else x
    found: Tensor = BiasedSum.apply(kept, y, second)
    return found


def without_bias(layer: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = layer._conv_forward(x, layer.weight, None)
    return y
