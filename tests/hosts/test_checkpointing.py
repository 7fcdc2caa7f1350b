"""Gradient checkpointing: what is computed again, and in which precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from ti_train.hosts.checkpointing import Recomputed, checkpointed


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


class FeedForward(nn.Linear):
    """Counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        FeedForward.calls += 1
        return super().forward(x).square()


@pytest.mark.parametrize(("what", "calls"), zip(Recomputed, (3, 6, 6), strict=True))
def test_feed_forwards_or_whole_blocks_are_computed_again(what, calls):
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Sequential(nn.LayerNorm(4), FeedForward(4, 4)) for _ in range(3)))
    given = torch.randn(2, 4)

    def gradient() -> Tensor:
        leaf = given.clone().requires_grad_()
        network(leaf).sum().backward()
        return leaf.grad

    plain, FeedForward.calls = gradient(), 0
    with checkpointed(network, what=what):
        assert torch.equal(gradient(), plain)
    assert FeedForward.calls == calls
    assert all("forward" not in vars(module) for module in network.modules())


class Sliced(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., :4]


def test_what_a_block_returns_may_be_a_view_and_be_added_to_in_place():
    """Forge adds the residual to what a feed-forward returns."""
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Sequential(Sliced(4, 8), nn.Identity())), torch.randn(2, 4)

    def gradient() -> Tensor:
        leaf = x.clone().requires_grad_()
        answer = network[0][0](leaf)
        answer += leaf
        answer.square().sum().backward()
        return leaf.grad

    plain = gradient()
    with checkpointed(network):
        assert torch.equal(gradient(), plain)
