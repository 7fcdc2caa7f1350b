"""Group norms with the SiLU behind them, and gated GELUs, of a U-Net on a GPU, in kernels of their own.

PyTorch's group norm copies a channels-last tensor to another layout and back, and each activation function reads and
writes all of it again, which takes a third of a step of eight images on an H200. These kernels need Triton, which comes
with PyTorch on Linux.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

log = logging.getLogger("ti_train")


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton (from 3.0 on) is there and compiles for the device, for which it needs a C compiler as well."""
    if device.type != "cuda":
        return False
    try:
        from .functions import GatedGELU, GroupNorm

        with torch.inference_mode(False), torch.enable_grad():
            x = torch.linspace(-2, 2, 512, device=device, dtype=dtype).view(1, 32, 4, 4).requires_grad_()
            weight = torch.ones(32, device=device, dtype=dtype)
            y = GroupNorm.apply(x, weight, weight, 4, 1e-5, True)
            torch.autograd.grad(GatedGELU.apply(y).sum(), x)
            right = torch.allclose(y, F.silu(F.group_norm(x, 4, weight, weight, 1e-5)), atol=0.05)
    except Exception as error:  # Triton, compilers and drivers raise what they like; PyTorch's own kernels serve
        log.info("PyTorch's own kernels compute norms and activation functions (%s: %s).", type(error).__name__, error)
        return False
    return right


def fuse(unet: nn.Module) -> None:
    """Replaces the computation of these layers in a U-Net of diffusers whose weights stay frozen."""
    from diffusers.models.activations import GEGLU

    before_silu = norms_before_silu(unet)
    for layer in unet.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.forward = functools.partial(normalized, layer, layer in before_silu)  # type: ignore[method-assign]
        elif isinstance(layer, GEGLU):
            layer.forward = functools.partial(gated, layer)


def norms_before_silu(unet: nn.Module) -> set[nn.Module]:
    """Takes the SiLU from behind each group norm that only SiLU reads; these norms."""
    from diffusers.models.resnet import ResnetBlock2D

    found = set()
    for block in unet.modules():
        if not isinstance(block, ResnetBlock2D) or not isinstance(block.nonlinearity, nn.SiLU):
            continue
        if block.time_embedding_norm == "default":  # another kind scales between the second norm and SiLU
            block.nonlinearity = SiLUOfVectors()
            found |= {block.norm1, block.norm2}
    if isinstance(unet.conv_act, nn.SiLU):
        unet.conv_act = SiLUOfVectors()
        found.add(unet.conv_norm_out)
    return found


class SiLUOfVectors(nn.Module):
    """SiLU of time embeddings; that of images is computed by the norm before it."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.dim() == 4 else F.silu(x)


def normalized(layer: nn.GroupNorm, silu: bool, x: Tensor) -> Tensor:
    from .functions import GroupNorm

    if x.dim() != 4:  # of an attention without cross-attention, on tokens
        return F.group_norm(x, layer.num_groups, layer.weight, layer.bias, layer.eps)
    y: Tensor = GroupNorm.apply(x, layer.weight, layer.bias, layer.num_groups, layer.eps, silu)
    return y


def gated(layer: Any, x: Tensor, *_: Any) -> Tensor:
    from .functions import GatedGELU

    y: Tensor = GatedGELU.apply(layer.proj(x))
    return y
