"""Packed convolutions, against PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.diffusers.packed_convolutions import can_pack, is_3x3, pack

THERE = can_pack(torch.device("cpu"), torch.bfloat16)
pytestmark = pytest.mark.skipif(not THERE, reason="needs oneDNN with bfloat16, on x86")

OTHERS = {
    "1 x 1": {"kernel_size": 1},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "without padding": {"padding": 0},
    "reflecting": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


def layer_of(dtype: torch.dtype = torch.float32, **settings) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(32, 48, **{"kernel_size": 3, "padding": 1} | settings).requires_grad_(False).to(dtype)


def output_and_gradient(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = x.clone().requires_grad_()
    output = layer(leaf)
    output.backward(torch.ones_like(output).cumsum(-1) / 100)
    assert leaf.grad is not None
    return output.detach(), leaf.grad


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 32, 4, 4), (2, 32, 9, 7), (4, 32, 32, 32)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradient_are_those_of_pytorch(bias, dtype, bound, shape, layout):
    layer = layer_of(dtype, bias=bias)
    own = copy.deepcopy(layer)
    pack(layer)
    x = torch.randn(shape).to(dtype).to(memory_format=layout)
    for found, expected in zip(output_and_gradient(layer, x), output_and_gradient(own, x), strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert (found - expected).norm() <= bound * expected.norm()


def test_a_packed_weight_is_the_same_numbers():
    layer = layer_of()
    weight = layer.weight.clone()
    pack(layer)
    assert layer.weight.is_mkldnn
    assert torch.equal(layer.weight.to_dense(), weight)


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_other_convolutions_are_left_alone(settings):
    layer = layer_of(**settings)
    pack(layer)
    assert not layer.weight.is_mkldnn
    assert "forward" not in vars(layer)


def test_no_input_is_kept_for_the_backward_pass():
    layer = layer_of()
    pack(layer)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(torch.randn(1, 32, 8, 8, requires_grad=True))
    assert not kept


def test_autocast_casts_to_the_dtype_of_the_weight():
    layer = layer_of(torch.bfloat16)
    x = torch.randn(1, 32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        pack(layer)
        assert torch.allclose(layer(x), expected, atol=0.02)
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_host_packs_its_unet(pipeline_folder, dtype):
    host = DiffusersHost.load(pipeline_folder, "cpu", dtype)
    whole_3x3 = [name for name, layer in host.unet.named_modules() if isinstance(layer, nn.Conv2d) and is_3x3(layer)]
    assert "conv_in" in whole_3x3
    assert all(host.unet.get_submodule(name).weight.is_mkldnn for name in whole_3x3)
