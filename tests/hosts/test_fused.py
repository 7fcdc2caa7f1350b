"""Fused norms and activation functions, in Triton's interpreter, against PyTorch's own."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from itertools import product

import pytest
import torch
from devices.runner import apart, on_card
from torch import nn

from ti_train.hosts.diffusers import host
from ti_train.hosts.diffusers.fused.layers import SiLUOfVectors, can_fuse, normalized, norms_before_silu
from ti_train.hosts.diffusers.host import DiffusersHost

needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="needs Triton, which comes with PyTorch for Linux")
INTERPRETED = {"TRITON_INTERPRET": "1"}
SHAPES = {  # groups
    (1, 32, 4, 4): 4,
    (2, 72, 5, 3): 3,  # channels of a group, pixels and blocks of channels that are no powers of two
    (1, 8, 27, 20): 2,  # pixels that more programs share than are summed up at once
}


def distances(dtype: str, mean: float, programs: int) -> list[float]:
    """Of outputs and gradients from those in float64, in parts of their length."""
    from torch.nn import functional as F

    from ti_train.hosts.diffusers.fused import functions
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

    functions.PROGRAMS = programs  # if few, each has several rows of pixels
    torch.manual_seed(0)
    cases = [(drawn(1, 2, 2200), GatedGELU.apply, gated)]
    for (shape, groups), silu in product(SHAPES.items(), (True, False)):
        layout = torch.channels_last if silu else torch.contiguous_format
        settings = {"weight": drawn(shape[1]), "bias": drawn(shape[1]), "groups": groups, "silu": silu}
        given = (drawn(*shape) + mean).contiguous(memory_format=layout)
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


def of_a_network() -> list[float]:
    """How far a U-Net's output and gradient are from those without fusing, in parts of their length."""
    from diffusers import UNet2DConditionModel

    from ti_train.hosts.diffusers.fused.layers import fuse

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=2, cross_attention_dim=8,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).requires_grad_(False)  # fmt: skip
    noisy, time, text = torch.randn(1, 4, 8, 8), torch.tensor([300.0]), torch.randn(1, 7, 8, requires_grad=True)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        out = unet(noisy, time, text, return_dict=False)[0]
        return out.detach(), torch.autograd.grad(out, text, out.detach().cos())[0]

    before = both()
    fuse(unet)
    return [float((a - b).norm() / b.norm()) for a, b in zip(both(), before, strict=True)]


def interpreted() -> dict[str, list[float]]:
    return {
        "float16": distances("float16", mean=0, programs=528),
        "large means": distances("float32", mean=200, programs=2),
        "network": of_a_network(),
    }


@pytest.fixture(scope="module")
def found():
    return apart(interpreted, environment=INTERPRETED)


@needs_triton
@pytest.mark.parametrize(("case", "bound"), {"float16": 4e-4, "large means": 2e-5}.items())
def test_outputs_and_gradients_are_those_of_exact_arithmetic_but_for_rounding(found, case, bound):
    assert len(found[case]) == 2 * (1 + 2 * len(SHAPES))
    assert max(found[case]) < bound


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


def test_a_host_whose_card_can_is_fused(pipeline_folder, monkeypatch):
    monkeypatch.setattr(host, "can_fuse", lambda *_: True)
    unet = DiffusersHost.load(pipeline_folder, "cpu").unet
    norms = [layer for layer in unet.modules() if isinstance(layer, nn.GroupNorm)]
    assert norms
    assert all("forward" in vars(norm) for norm in norms)


def test_a_norm_of_tokens_is_pytorchs():
    norm, x = nn.GroupNorm(2, 4), torch.randn(3, 4, 5)
    assert torch.equal(normalized(norm, False, x), norm(x))
