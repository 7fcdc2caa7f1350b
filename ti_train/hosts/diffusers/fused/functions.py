"""Group norm with SiLU, and the gated GELU, as functions of autograd that are differentiable in x and keep x alone."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor

from . import kernels

PROGRAMS = 528  # that share the sums of a norm, about: four for each of an H100's multiprocessors


class GroupNorm(torch.autograd.Function):
    """F.group_norm of images [B, C, H, W] in channels-last layout, and F.silu of it if wanted."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        y, affine, moments = torch.empty_like(x), pair(x, x.shape[1]), pair(x, groups)
        ctx.groups, ctx.silu = groups, silu
        with torch.cuda.device_of(x):
            summed = sums(x, None, affine, silu)
            coefficients(x, summed, weight, bias, moments, affine, eps, backward=False)
            apply(x, None, affine, None, y, silu)
        ctx.save_for_backward(x, weight, affine, moments)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, affine, moments = ctx.saved_tensors
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        dx, line = torch.empty_like(x), pair(x, x.shape[1])
        with torch.cuda.device_of(x):
            summed = sums(x, dy, affine, ctx.silu)
            coefficients(x, summed, weight, None, moments, line, 0.0, backward=True)
            apply(x, dy, affine, line, dx, ctx.silu)
        return dx, *[None] * 5


def pair(x: Tensor, *shape: int) -> Tensor:
    """An empty tensor [2, B, *shape] fp32 on the same device."""
    return x.new_empty(2, x.shape[0], *shape, dtype=torch.float32)


def sums(x: Tensor, dy: Tensor | None, affine: Tensor, silu: bool) -> Tensor:
    """Two sums [2, B, parts, C] of each channel over parts of an image."""
    images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    columns = ceil(channels / kernels.COLUMNS)
    parts = max(1, min(ceil(pixels / kernels.ROWS), ceil(PROGRAMS / (images * columns))))
    each = ceil(pixels / parts / kernels.ROWS) * kernels.ROWS
    found = pair(x, ceil(pixels / each), channels)
    kernels.sums[images, found.shape[2], columns](
        x, dy, *affine, *found, pixels, channels, each, dy is not None, silu, kernels.ROWS, kernels.COLUMNS
    )
    return found


def coefficients(
    x: Tensor, summed: Tensor, weight: Tensor, bias: Tensor | None, moments: Tensor, line: Tensor, eps: float,
    backward: bool,
) -> None:  # fmt: skip
    """Fills in the line [2, B, C] of each channel, and forward the moments [2, B, groups] too."""
    images, channels, groups, pixels = x.shape[0], x.shape[1], moments.shape[2], x.shape[2] * x.shape[3]
    depth = 1 << (channels // groups - 1).bit_length()  # the next power of two
    sizes = summed.shape[2], pixels, channels
    kernels.coefficients[images, groups](
        x, *summed, weight, bias, *moments, *line, *sizes, eps, backward, kernels.PARTS, depth
    )


def apply(x: Tensor, dy: Tensor | None, affine: Tensor, line: Tensor | None, out: Tensor, silu: bool) -> None:
    size = x[0].numel()
    kernels.applied[ceil(size / kernels.BLOCK), x.shape[0]](
        x, dy, *affine, *([None, None] if line is None else line), out, x.shape[1], size, dy is not None, silu,
        kernels.BLOCK,
    )  # fmt: skip


class GatedGELU(torch.autograd.Function):
    """x[..., :width] F.gelu(x[..., width:]) of x [..., 2 width]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
        gate(x, None, y)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        gate(x, gradients[0].contiguous(), dx)
        return dx


def gate(x: Tensor, dy: Tensor | None, out: Tensor) -> None:
    width = x.shape[-1] // 2
    with torch.cuda.device_of(x):
        kernels.gated_gelu[x.numel() // (2 * width), ceil(width / kernels.WIDTH)](
            x, dy, out, width, dy is not None, kernels.WIDTH
        )
