"""The layers of a U-Net that kernels compute as they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .images import GroupNorm
from .tokens import GatedGELU


def normalized(layer: nn.GroupNorm, x: Tensor, silu: bool = False, added: Tensor | None = None) -> Tensor:
    """added: [B, C], a summand of all pixels before the norm."""
    if x.dim() != 4:  # of an attention without cross-attention, on tokens
        return F.group_norm(x, layer.num_groups, layer.weight, layer.bias, layer.eps)
    y: Tensor = GroupNorm.apply(x, layer.weight, layer.bias, layer.num_groups, layer.eps, silu, added)
    return y


def gated(layer: Any, x: Tensor, *_: Any) -> Tensor:
    y: Tensor = GatedGELU.apply(layer.proj(x))
    return y
