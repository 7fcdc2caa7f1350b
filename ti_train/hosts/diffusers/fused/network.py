"""Layers and blocks of a U-Net on a GPU, computed by fewer kernels that read and write less.

PyTorch's group norm copies a channels-last tensor to another layout and back, and each activation function, bias and
sum reads and writes all of it again, which takes two fifths of a step of eight images on an H200. These kernels need
Triton, which comes with PyTorch on Linux.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import nn
from torch.nn import functional as F

log = logging.getLogger("ti_train")


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton (from 3.0 on) is there, compiles for the device, and computes there what PyTorch does.

    To compile it needs a C compiler as well.
    """
    if device.type != "cuda":
        return False
    try:
        from .images import BiasedSum, GroupNorm
        from .tokens import AddedNorm, GatedGELU

        with torch.inference_mode(False), torch.enable_grad():
            x = torch.linspace(-2, 2, 512, device=device, dtype=dtype).view(1, 32, 4, 4).requires_grad_()
            one = torch.ones(32, device=device, dtype=dtype)
            norm = GroupNorm.apply(x, one, one, 4, 1e-5, True, one[None])
            tokens, normal = AddedNorm.apply(BiasedSum.apply(x, norm, one).flatten(2).mT, None, one, one, 1e-5)
            ours = GatedGELU.apply(AddedNorm.apply(tokens, normal, one, one, 1e-5)[1])
            tokens = (x + F.silu(F.group_norm(x + 1, 4, one, one, 1e-5)) + 1).flatten(2).mT
            value, gate = F.layer_norm(tokens + F.layer_norm(tokens, [32], one, one), [32], one, one).chunk(2, -1)
            pairs = zip(*((y, *torch.autograd.grad(y.sum(), x)) for y in (ours, value * F.gelu(gate))), strict=True)
            right = all(bool((a - b).norm() < 0.2 * b.norm()) for a, b in pairs)  # bfloat16 alone is .05 away
    except Exception as error:  # Triton, compilers and drivers raise what they like; PyTorch's own kernels serve
        log.info("PyTorch's own kernels compute norms and activation functions (%s: %s).", type(error).__name__, error)
        return False
    return right


def fuse(unet: nn.Module) -> None:
    """Replaces the computation of these layers in a U-Net of diffusers whose weights stay frozen."""
    from diffusers.models.activations import GEGLU
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    from . import layers, residual_blocks, transformers

    for layer in unet.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.forward = functools.partial(layers.normalized, layer)  # type: ignore[method-assign]
        elif isinstance(layer, GEGLU):
            layer.forward = functools.partial(layers.gated, layer)
        elif isinstance(layer, ResnetBlock2D) and residual_blocks.is_usual(layer):
            residual_blocks.fuse(layer)
        elif isinstance(layer, Transformer2DModel):
            transformers.fuse_projections(layer)
        elif isinstance(layer, BasicTransformerBlock) and transformers.is_usual(layer):
            layer.forward = functools.partial(transformers.transformed, layer)
    norm = unet.conv_norm_out
    if isinstance(norm, nn.GroupNorm) and isinstance(unet.conv_act, nn.SiLU):
        norm.forward = functools.partial(layers.normalized, norm, silu=True)  # type: ignore[method-assign]
        unet.conv_act = nn.Identity()
