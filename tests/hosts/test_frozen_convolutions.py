"""Convolutions that keep no input, against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ti_train.hosts.frozen_convolutions import keep_no_inputs

SETTINGS = {
    "3 x 3": {"kernel_size": 3, "padding": 1},
    "1 x 1": {"kernel_size": 1},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "grouped, without bias": {"kernel_size": 3, "groups": 2, "bias": False},
    "dilated": {"kernel_size": 3, "dilation": 2},
}


def saved_by(work) -> list[torch.Tensor]:
    """The tensors that autograd keeps while `work` runs."""
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        work()
    return kept


def frozen_layer(**settings) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, **settings).requires_grad_(False)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_output_and_gradient_are_the_same_bits(settings, dtype, layout):
    layer = frozen_layer(**settings).to(dtype).to(memory_format=layout)
    x = torch.randn(2, 4, 9, 9).to(dtype).to(memory_format=layout)
    found = []
    for lean in (False, True):
        if lean:
            keep_no_inputs(layer)
        leaf = x.clone().requires_grad_()
        output = layer(leaf)
        output.backward(torch.ones_like(output).cumsum(-1))
        found.append((output.detach(), leaf.grad))
    (output, gradient), (lean_output, lean_gradient) = found
    assert torch.equal(output, lean_output)
    assert torch.equal(gradient, lean_gradient)


def test_only_the_weight_is_kept():
    layer = frozen_layer(kernel_size=3)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    assert any(kept.shape == x.shape for kept in saved_by(lambda: layer(x)))
    keep_no_inputs(layer)
    assert [kept.shape for kept in saved_by(lambda: layer(x))] == [layer.weight.shape]


def test_backward_computes_no_gradient_of_the_weight():
    """Each of the two costs as much as the forward pass."""
    layer = frozen_layer(kernel_size=3)
    keep_no_inputs(layer)
    with FlopCounterMode(display=False) as counted:
        output = layer(torch.randn(2, 4, 9, 9, requires_grad=True))
        forward = counted.get_total_flops()
        output.sum().backward()
    assert counted.get_total_flops() == 2 * forward


def test_a_layer_that_is_trained_is_as_before():
    layer = nn.Conv2d(4, 6, 3)
    keep_no_inputs(layer)
    layer(torch.randn(2, 4, 9, 9, requires_grad=True)).sum().backward()
    assert layer.weight.grad is not None
