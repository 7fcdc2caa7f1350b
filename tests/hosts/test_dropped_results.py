"""Norms and activation functions whose results backward makes again, against PyTorch's own."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from ti_train.hosts import dropped_results
from ti_train.hosts.dropped_results import Dropped, Kept, keep, results_dropped


class FeedForward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        shown, gate = x.chunk(2, -1)
        return shown * F.gelu(gate) + shown * F.gelu(gate, approximate="tanh") + shown * F.silu(gate)


def residual_block() -> nn.Module:
    return nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(4, 4, affine=False), nn.SiLU())


def scaled_norm() -> nn.Module:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) * x

    return Scaled()


BLOCKS = {"residual block": residual_block, "feed-forward": FeedForward, "scaled norm": scaled_norm}


@pytest.fixture
def block(request) -> nn.Module:
    torch.manual_seed(0)
    block: nn.Module = BLOCKS[request.param]().requires_grad_(False)
    for weight in block.parameters():
        weight.add_(torch.randn_like(weight))
    return block


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(dropped_results, "LEAST", 0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", BLOCKS, indirect=True)
def test_output_and_gradient_are_the_same_bits(block, dtype, layout):
    block.to(dtype).to(memory_format=layout)
    x = torch.randn(2, 4, 8, 8).to(dtype).to(memory_format=layout)
    found = []
    for context in (nullcontext(), results_dropped(block)):
        leaf = x.clone().requires_grad_()
        with context:
            output = block(leaf * 2)
            output.backward(torch.ones_like(output).cumsum(-1))
        found.append((output.detach(), leaf.grad))
    (output, gradient), (lean_output, lean_gradient) = found
    assert torch.equal(output, lean_output)
    assert torch.equal(gradient, lean_gradient)


def kept_by(block: nn.Module, x: Tensor) -> list[Tensor]:
    """What autograd keeps of a pass, besides weights."""
    kept: list[Kept | Dropped] = []
    with results_dropped(block), saved_tensors_hooks(lambda t: kept.append(keep(t)) or kept[-1], lambda one: one):
        block(x)
    weights = {weight.data_ptr() for weight in block.parameters()}
    return [one.tensor for one in kept if isinstance(one, Kept) and one.tensor.data_ptr() not in weights]


def test_of_norm_activation_and_convolution_only_the_norms_input_is_kept():
    block = nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3)).requires_grad_(False)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    large = [tensor for tensor in kept_by(block, x) if tensor.shape == x.shape]
    assert [tensor.data_ptr() for tensor in large] == [x.data_ptr()]


def test_of_a_gated_feed_forward_only_its_input_is_kept():
    x = torch.randn(2, 16, requires_grad=True)
    assert {tensor.untyped_storage().data_ptr() for tensor in kept_by(FeedForward(), x)} == {x.data_ptr()}


def test_the_result_of_a_norm_that_computes_in_another_dtype_than_its_inputs_is_kept():
    """Of autocast, outside of which the layer could not make it again."""

    class Cast(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float())

    norm, x = Cast(8), torch.randn(2, 8, requires_grad=True)
    with results_dropped(norm):
        assert isinstance(keep(norm(x)), Dropped)
        assert isinstance(keep(norm(x.bfloat16())), Kept)


def test_it_decides_for_autograd_within_the_context(monkeypatch):
    asked: list[Tensor] = []
    monkeypatch.setattr(dropped_results, "keep", lambda tensor: asked.append(tensor) or keep(tensor))
    x = torch.randn(2, 16, requires_grad=True)
    with results_dropped():
        F.silu(x)
    F.silu(x)
    assert asked == [x]


def test_small_results_are_kept(monkeypatch):
    x = torch.randn(2, 16, requires_grad=True)
    monkeypatch.setattr(dropped_results, "LEAST", 8 * 2 * 4)
    assert isinstance(keep(F.silu(x)), Dropped)
    monkeypatch.setattr(dropped_results, "LEAST", 2**18)
    assert isinstance(keep(F.silu(x)), Kept)


def test_a_pass_without_a_backward_pass_leaves_nothing_in_memory():
    """A card that is full in the forward pass. Autograd keeps results of a group norm and of attention itself."""
    norm, memory = nn.GroupNorm(2, 4), []
    with results_dropped(norm):
        x = norm(torch.randn(1, 4, 8, 8, requires_grad=True) * 2)
        output = F.scaled_dot_product_attention(x, x, x)
        memory += [weakref.ref(x), weakref.ref(output)]
        del x, output
    assert [tensor() for tensor in memory] == [None, None]


def test_a_tensor_that_is_changed_in_place_is_noticed():
    x = torch.randn(4, requires_grad=True)
    with results_dropped():
        doubled = x * 2
        output = doubled * doubled
        doubled.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_norms_are_as_they_were_afterwards():
    block = residual_block()
    with results_dropped(block):
        assert any(part._forward_hooks for part in block)
    assert not any(part._forward_hooks for part in block)
    with pytest.raises(KeyError), results_dropped(block):
        raise KeyError
    assert not any(part._forward_hooks for part in block)
