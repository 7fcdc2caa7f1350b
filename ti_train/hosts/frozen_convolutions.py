"""Convolutions of frozen weights that keep no input.

The gradient of a convolution's input needs the weight only. PyTorch computes the gradients of input and weight in one
function, so its convolutions keep their inputs even where no weight is trained (of linear layers it does not).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def keep_no_inputs(network: nn.Module) -> None:
    """Replaces the computation of all two-dimensional convolutions; the results are the same bits."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            own = layer._conv_forward
            layer._conv_forward = functools.partial(_convolved, layer, own)  # type: ignore[method-assign]


def _convolved(
    layer: nn.Conv2d, forward: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """As the layer itself where nothing is kept, where weights are trained, and where autocast casts them."""
    frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
    kept = torch.is_grad_enabled() and x.requires_grad and frozen
    if not kept or layer.padding_mode != "zeros" or isinstance(layer.padding, str) or x.dtype != weight.dtype:
        return forward(x, weight, bias)
    convolved: Tensor = Convolution.apply(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return convolved


class Convolution(torch.autograd.Function):
    """F.conv2d, differentiable in x alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.strides, ctx.settings = x.shape, x.stride(), (stride, padding, dilation, groups)
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (stride, padding, dilation, groups) = ctx.saved_tensors, ctx.settings
        # of x only what decides on the kernel: its shape and layout
        x = torch.empty_strided(ctx.shape, ctx.strides, dtype=weight.dtype, device=weight.device)
        wanted = (True, False, False)
        gradient, _, _ = torch.ops.aten.convolution_backward(
            gradients[0], x, weight, None, stride, padding, dilation, False, (0, 0), groups, wanted
        )
        return gradient, *[None] * 6
