"""Weights made differentiable in place, and activations that backward computes again."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from ti_train.hosts.checkpointing import checkpointed
from ti_train.hosts.saved_tensors import copied_before_changes


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.net(x)


class BlockInPlace(Block):
    """As Forge's: what it is given is changed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += self.net(x.clone())
        return x


class Transformer(nn.Module):
    """A member of the network's list that has a list within itself, as Stable Diffusion XL's have."""

    def __init__(self, depth: int, block: type[Block]) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([block() for _ in range(depth)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.transformer_blocks:
            x = block(x)
        return x


class Network(nn.Module):
    def __init__(self, depth: int, block: type[Block] = Block) -> None:
        super().__init__()
        self.input_blocks = nn.ModuleList([nn.Sequential(Block(), Transformer(depth, block))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.input_blocks[0](x)


@pytest.mark.parametrize("block", [Block, BlockInPlace])
def test_checkpointing_changes_no_gradient(block):
    network, x = Network(3, block).requires_grad_(False), torch.randn(2, 64)
    plain, again = x.clone().requires_grad_(), x.clone().requires_grad_()
    network(plain).pow(2).sum().backward()
    with checkpointed(network):
        network(again).pow(2).sum().backward()
    assert torch.equal(plain.grad, again.grad)
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_transformer_is_computed_again_a_block_at_a_time():
    network = Network(3)
    with checkpointed(network):
        computed_again = [type(module) for module in network.modules() if "forward" in vars(module)]
    assert computed_again == [Block] * 4


class KeepsAndChanges(nn.Module):
    """As Flux's: a tensor that backward needs is changed in place, within the block and by the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.gate = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, img: torch.Tensor, txt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.net(img) + txt
        answer = hidden * self.gate(hidden).sigmoid()
        hidden += 1
        img += answer * hidden
        return img, txt + answer.mean(0)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.double_blocks = nn.ModuleList([KeepsAndChanges(), KeepsAndChanges()])

    def forward(self, img: torch.Tensor, txt: torch.Tensor) -> torch.Tensor:
        for block in self.double_blocks:
            img, txt = block(img, txt)
        return img


def test_a_block_that_changes_what_it_needs_has_the_same_gradient():
    torch.manual_seed(0)
    network, img, txt = Twice().requires_grad_(False), torch.randn(4, 8), torch.randn(1, 8)
    gradients = []
    for context in (nullcontext(), checkpointed(network)):
        given = txt.clone().requires_grad_()
        with context, copied_before_changes():
            network(img.clone(), given).pow(2).sum().backward()
        gradients.append(given.grad)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-6)


def test_a_block_is_computed_again_though_only_some_of_what_it_is_given_is_trained():
    """As Flux's first one: its text depends on the embedding, its image does not."""
    network, computed = Twice().requires_grad_(False), []
    network.double_blocks[0].net.register_forward_hook(lambda *_: computed.append("first"))
    with checkpointed(network), copied_before_changes():
        network(torch.randn(4, 8), torch.randn(1, 8, requires_grad=True)).sum().backward()
    assert computed == ["first"] * 2


def test_lists_of_single_layers_are_no_blocks():
    network = Twice()
    for block in network.double_blocks:
        block.to_out = nn.ModuleList([nn.Linear(8, 8), nn.Dropout()])
    with checkpointed(network):
        assert [type(m) for m in network.modules() if "forward" in vars(m)] == [KeepsAndChanges] * 2
