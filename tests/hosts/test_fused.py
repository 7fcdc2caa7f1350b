"""Fused norms and activation functions, in Triton's interpreter, against PyTorch's own."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch
from devices.runner import apart, on_card
from torch import nn

from ti_train.hosts.diffusers.fused.layers import SiLUOfVectors, can_fuse, norms_before_silu
from ti_train.hosts.diffusers.host import DiffusersHost

needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="needs Triton, which comes with PyTorch for Linux")
INTERPRETED = {"TRITON_INTERPRET": "1"}
SHAPES = {  # groups
    (1, 32, 4, 4): 4,
    (2, 96, 5, 3): 32,  # channels of a group, pixels and blocks of channels that are no powers of two
    (1, 8, 10, 7): 2,  # pixels that several programs share
}


def distances(dtype: str) -> list[float]:
    """Of outputs and gradients from those in float64, in parts of their length."""
    from torch.nn import functional as F

    from ti_train.hosts.diffusers.fused.functions import GatedGELU, GroupNorm

    def drawn(*shape: int) -> torch.Tensor:
        return (torch.randn(shape) * 2 + 1).to(getattr(torch, dtype))

    def gated(x: torch.Tensor) -> torch.Tensor:
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)

    def own(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, silu: bool) -> torch.Tensor:
        return GroupNorm.apply(x, weight, bias, groups, 1e-5, silu)

    def normalized(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, silu: bool) -> torch.Tensor:
        z = F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype))
        return F.silu(z) if silu else z

    torch.manual_seed(0)
    cases = [(drawn(2, 5, 80), GatedGELU.apply, gated)]
    for (shape, groups), silu in product(SHAPES.items(), (True, False)):
        layout = torch.channels_last if silu else torch.contiguous_format
        settings = {"weight": drawn(shape[1]), "bias": drawn(shape[1]), "groups": groups, "silu": silu}
        given = drawn(*shape).contiguous(memory_format=layout)
        cases.append((given, partial(own, **settings), partial(normalized, **settings)))
    found = []
    for given, fused, exact in cases:
        x, precise = given.clone().requires_grad_(), given.double().requires_grad_()
        y, expected = fused(x), exact(precise)
        assert (y.dtype, y.shape) == (given.dtype, expected.shape)
        dy = torch.randn_like(expected).to(given.dtype)
        (gradient,), (wanted,) = torch.autograd.grad(y, x, dy), torch.autograd.grad(expected, precise, dy.double())
        found += [float((a - b).norm() / b.norm()) for a, b in ((y, expected), (gradient, wanted))]
    return found


def whole_network(model: str) -> list[float]:
    """How far a U-Net's output and gradient are from those without fusing, in parts of their length."""
    from ti_train.hosts.diffusers.fused.layers import fuse

    host = DiffusersHost.load(Path(model), "cpu", "float32")
    assert not can_fuse(host.device, host.dtype)
    torch.manual_seed(0)
    noisy, time = torch.randn(1, 4, 8, 8), torch.tensor([300.0])
    text = torch.randn(1, 7, host.unet.config.cross_attention_dim, requires_grad=True)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        out = host.unet(noisy, time, text, return_dict=False)[0]
        return out.detach(), torch.autograd.grad(out, text, out.detach().cos())[0]

    before = both()
    fuse(host.unet)
    return [float((a - b).norm() / b.norm()) for a, b in zip(both(), before, strict=True)]


def interpreted(model: str) -> dict[str, list[float]]:
    return {"functions": distances("float16"), "network": whole_network(model)}


@pytest.fixture(scope="module")
def found(pipeline_folder):
    return apart(interpreted, str(pipeline_folder), environment=INTERPRETED)


@needs_triton
def test_outputs_and_gradients_are_those_of_exact_arithmetic_but_for_one_rounding(found):
    assert len(found["functions"]) == 2 * (1 + 2 * len(SHAPES))
    assert max(found["functions"]) < 4e-4, "half of what float16 resolves is 2.4e-4"


@needs_triton
def test_a_fused_network_computes_the_same(found):
    assert max(found["network"]) < 1e-5


def test_only_norms_whose_result_silu_alone_reads_apply_it(pipeline_folder):
    unet = DiffusersHost.load(pipeline_folder, "cpu").unet
    scaled = next(block for block in unet.modules() if type(block).__name__ == "ResnetBlock2D")
    scaled.time_embedding_norm = "scale_shift"  # multiplies what the second norm gives before SiLU
    norms = {name for name, layer in unet.named_modules() if isinstance(layer, nn.GroupNorm)}
    fused = norms_before_silu(unet)
    names = {name for name, layer in unet.named_modules() if layer in fused}
    assert {name for name in norms if "attentions" in name}.isdisjoint(names)
    assert {scaled.norm1, scaled.norm2}.isdisjoint(fused)
    assert isinstance(scaled.nonlinearity, nn.SiLU)
    assert len(names) == len([name for name in norms if "attentions" not in name]) - 2


def test_time_embeddings_keep_their_silu():
    x = torch.randn(2, 8)
    assert torch.equal(SiLUOfVectors()(x), nn.functional.silu(x))


def on_a_card() -> bool:
    return can_fuse(torch.device("cuda"), torch.float32)


def test_a_card_for_which_triton_compiles_nothing_has_pytorchs_own_kernels():
    assert on_card(on_a_card) is False
