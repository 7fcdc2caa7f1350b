"""Functions of autograd on tokens [B, T, C], not differentiable in weights."""

from __future__ import annotations

from math import ceil, gcd
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import kernels


class AddedNorm(torch.autograd.Function):
    """x + y, or x, and F.layer_norm of it.

    In one, since what is added is read by the norm, and the gradient passes by the norm as well.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor | None, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        x, added = x.contiguous(), y is not None
        total, normal = torch.empty_like(x) if added else x, torch.empty_like(x)
        tokens, width = x.numel() // x.shape[-1], x.shape[-1]
        moments = x.new_empty(2, tokens, dtype=torch.float32)
        y = y.contiguous() if y is not None else None
        with torch.cuda.device_of(x):
            rows, columns = registers(width)
            kernels.layer_norm[ceil(tokens / rows),](
                x, y, weight, bias, total, normal, *moments, tokens, width, eps, added, rows, columns
            )
        ctx.save_for_backward(total, weight, moments)
        ctx.added = added
        return total, normal

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        total, weight, moments = ctx.saved_tensors
        passed, dy = (gradient.contiguous() for gradient in gradients)
        dx, (tokens, width) = torch.empty_like(total), (moments.shape[1], total.shape[-1])
        with torch.cuda.device_of(total):
            rows, columns = registers(width)
            kernels.layer_norm_backward[ceil(tokens / rows),](
                total, passed, dy, weight, *moments, dx, tokens, width, rows, columns
            )
        return dx, dx if ctx.added else None, None, None, None


def registers(width: int) -> tuple[int, int]:
    """How many tokens a program normalizes, and the length of each in its registers."""
    columns = kernels.power_of_two(width)
    return max(1, kernels.TOKENS // columns), columns


class Projections(torch.autograd.Function):
    """F.linear of the same tokens with several weights [D, C]; their gradients are summed up by the products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*weights)
        return tuple(F.linear(x, weight) for weight in weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (first, *others), shape = ctx.saved_tensors, gradients[0].shape[:-1]
        dx = gradients[0].flatten(0, -2) @ first
        for dy, weight in zip(gradients[1:], others, strict=True):
            dx.addmm_(dy.flatten(0, -2), weight)
        return dx.unflatten(0, shape), *[None] * (1 + len(others))


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
    tokens, width = x.numel() // x.shape[-1], x.shape[-1] // 2
    columns = gcd(width, kernels.GATED)
    rows = kernels.GATED // columns
    with torch.cuda.device_of(x):
        kernels.gated_gelu[ceil(tokens / rows), width // columns](
            x, dy, out, tokens, width, dy is not None, rows, columns
        )
