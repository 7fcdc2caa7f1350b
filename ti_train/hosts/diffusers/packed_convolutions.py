"""Convolutions whose frozen weights lie in the layout in which oneDNN computes.

PyTorch copies a weight into that layout in each call, which takes longer than the convolution itself where channels
are many and pixels few. The gradient of the input is a convolution too, of the weight turned and with its channels
swapped, so each weight is kept twice and its usual layout not at all.
"""

from __future__ import annotations

import functools
import platform
from typing import Any

import torch
from torch import Tensor, nn

from ...device import return_freed_memory

ONES = [1, 1]  # padding, stride and dilation


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch computes there with oneDNN's own kernels, whose layouts these are."""
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and torch.backends.mkldnn.is_available()


def pack(network: nn.Module) -> None:
    """Packs the frozen 3 x 3 convolutions that keep an image's size; `weight.to_dense()` is the usual layout again."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and is_3x3(layer):
            swapped = packed(layer.weight.transpose(0, 1).contiguous().flip(2, 3))
            layer.weight = nn.Parameter(packed(layer.weight), requires_grad=False)
            layer.forward = functools.partial(convolved, layer, swapped)  # type: ignore[method-assign]
            return_freed_memory(layer.weight.device)


def is_3x3(layer: nn.Conv2d) -> bool:
    sizes = (layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups)
    return sizes == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and layer.padding_mode == "zeros"


def packed(weight: Tensor) -> Tensor:
    """weight: [out, in, 3, 3]. Of 1 x 1 convolutions the layout would depend on the size of the image."""
    return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.contiguous().to_mkldnn(), ONES, ONES, ONES, 1)


def convolved(layer: nn.Conv2d, swapped: Tensor, x: Tensor) -> Tensor:
    """x may have another dtype than the weight under autocast, which casts it too."""
    found: Tensor = PackedConvolution.apply(x.to(layer.weight.dtype), layer.weight, layer.bias, swapped)
    return found


class PackedConvolution(torch.autograd.Function):
    """F.conv2d of 3 x 3 with padding 1, differentiable in x alone; keeps nothing of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, swapped: Tensor) -> Tensor:
        ctx.swapped = swapped
        return convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return convolve(gradients[0], ctx.swapped, None), None, None, None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, ONES, ONES, ONES, 1, "none", [], "")
    return found
