"""Residuals that a host adds in place: their gradients, and what is left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm

from ti_train.hosts.residuals import copied_for, norms_in


class Block(nn.Module):
    """As of CLIP in ComfyUI and reForge."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += self.layer(self.norm(x))
        return x


@pytest.fixture
def blocks() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block())


def out_of_place(blocks: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        x = x + block.layer(layer_norm(x, (8,)))
    return x


def gradient(network, given: torch.Tensor) -> torch.Tensor:
    leaf = given.clone().requires_grad_()
    network(leaf * 1).pow(2).sum().backward()
    return leaf.grad


def test_norms_get_copies_of_what_is_changed_later(blocks):
    given = torch.randn(2, 8)
    with copied_for(norms_in(blocks)):
        found = gradient(blocks, given)
    assert torch.equal(found, gradient(lambda x: out_of_place(blocks, x), given))


def test_without_copies_pytorch_refuses_the_gradient(blocks):
    with copied_for(norms_in(blocks)):
        pass
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(blocks, torch.randn(2, 8))
    assert not any(module._forward_pre_hooks for module in blocks.modules())


def test_norms_are_known_by_name():
    class T5LayerNorm(nn.Module):
        pass

    norms = nn.ModuleList([nn.LayerNorm(4), nn.GroupNorm(1, 4), T5LayerNorm()])
    assert norms_in(nn.Sequential(nn.Linear(4, 4), norms)) == list(norms)
