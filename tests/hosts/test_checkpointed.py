"""Gradient checkpointing where a host casts by itself instead of by PyTorch's autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from ti_train.hosts.weights import checkpointed


class Norm(nn.GroupNorm):
    """As in the original release of Stable Diffusion."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type(x.dtype)


@contextmanager
def casting() -> Iterator[None]:
    """Inputs in the weights' dtype: what AUTOMATIC1111 does to the layers' classes on MPS, XPU and the GTX 16."""
    forward = nn.GroupNorm.forward
    nn.GroupNorm.forward = lambda self, x: forward(self, x.to(self.weight.dtype))
    try:
        yield
    finally:
        nn.GroupNorm.forward = forward


def gradient(checkpointing: Callable[[nn.Module], AbstractContextManager[object]]) -> Tensor:
    """Of the input; the context of the cast is left before backward begins, as in the loop."""
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Sequential(Norm(2, 8), nn.Conv2d(8, 8, 1), nn.SiLU()) for _ in range(2)))
    network.bfloat16().requires_grad_(False)
    given = torch.randn(1, 8, 4, 4).requires_grad_()
    with checkpointing(network):
        with casting():
            answer = network(given.bfloat16())
        answer.float().pow(2).sum().backward()
    return given.grad


def test_backward_computes_in_the_precision_of_the_forward_pass():
    plain = gradient(lambda _: nullcontext())
    assert torch.equal(gradient(lambda network: checkpointed(network, casting)), plain)


def test_without_it_the_layers_do_not_fit_together():
    with pytest.raises(RuntimeError):
        gradient(checkpointed)


class Attention(nn.Linear):
    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return super().forward(x) + context


def test_a_block_may_have_inputs_of_any_name():
    """ComfyUI's transformer blocks are called with context=."""
    network = nn.Sequential(nn.Sequential(Attention(4, 4)))
    given = torch.ones(1, 4, requires_grad=True)
    with checkpointed(network):
        network[0][0](torch.ones(1, 4), context=given).sum().backward()
    assert torch.equal(given.grad, torch.ones(1, 4))
