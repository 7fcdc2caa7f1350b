"""Recomputed activations give the gradient that kept ones give."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ti_train.hosts.weights import checkpointed


class AddsInPlace(nn.Module):
    """A residual block as Forge has it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x += self.linear(x).tanh()
        return x


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AddsInPlace() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def gradient(network: nn.Module) -> Tensor:
    vector = torch.linspace(-1, 1, 4).requires_grad_()
    network(2 * vector).square().sum().backward()
    return vector.grad


def test_a_block_that_adds_to_its_input_in_place_is_recomputed_from_what_it_was_given():
    torch.manual_seed(0)
    network = Network().requires_grad_(False)
    kept = gradient(network)
    with checkpointed(network):
        recomputed = gradient(network)
    torch.testing.assert_close(recomputed, kept, rtol=1e-6, atol=1e-6)
