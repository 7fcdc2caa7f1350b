"""Fused layers and blocks of a U-Net, in Triton's interpreter, against PyTorch's own and diffusers'."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import Any

import pytest
import torch
from devices.runner import apart, on_card
from torch import Tensor, nn
from torch.nn import functional as F

from ti_train.hosts.checkpointing import Recomputed, checkpointed
from ti_train.hosts.diffusers import host
from ti_train.hosts.diffusers.fused.network import can_fuse
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.dropped_results import results_dropped
from ti_train.hosts.frozen_convolutions import keep_no_inputs

needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="needs Triton, which comes with PyTorch for Linux")
INTERPRETED = {"TRITON_INTERPRET": "1"}
SHAPES = {  # groups
    (1, 32, 4, 4): 4,
    (2, 72, 5, 3): 3,  # channels of a group, pixels and blocks of channels that are no powers of two
    (1, 8, 27, 20): 2,  # pixels that more programs share than are summed up at once
}
Case = tuple[list[Tensor], Callable[..., Any], Callable[..., Any]]  # what is given, the kernels, exact arithmetic


def drawn(dtype: torch.dtype, *shape: int) -> Tensor:
    return (torch.randn(shape) * 2 + 1).to(dtype)


def of_images(dtype: torch.dtype, mean: float) -> list[Case]:
    from ti_train.hosts.diffusers.fused.images import BiasedSum, GroupNorm

    def own(x: Tensor, *added: Tensor, weight: Tensor, bias: Tensor, groups: int, silu: bool) -> Tensor:
        return GroupNorm.apply(x, weight, bias, groups, 1e-5, silu, *(added or [None]))

    def exact(x: Tensor, *added: Tensor, weight: Tensor, bias: Tensor, groups: int, silu: bool) -> Tensor:
        z = F.group_norm(sum((a[:, :, None, None] for a in added), x), groups, weight.to(x.dtype), bias.to(x.dtype))
        return F.silu(z) if silu else z

    cases: list[Case] = []
    for (shape, groups), silu in product(SHAPES.items(), (True, False)):
        layout = torch.channels_last if silu else torch.contiguous_format
        settings = {"weight": drawn(dtype, shape[1]), "bias": drawn(dtype, shape[1]), "groups": groups, "silu": silu}
        given = [(drawn(dtype, *shape) + mean).contiguous(memory_format=layout)]
        if mean:
            given[0][:, :, 0, 0] = 0  # a corner is unlike the rest behind a padded convolution
        given += [drawn(dtype, *shape[:2])] if silu else []  # as where SiLU follows: of a time embedding
        cases.append((given, partial(own, **settings), partial(exact, **settings)))
    bias = drawn(dtype, 72)
    summed = [drawn(dtype, 2, 72, 5, 3), drawn(dtype, 2, 72, 5, 3)]
    cases.append((summed, lambda x, y: BiasedSum.apply(x, y, bias), lambda x, y: x + y + bias[:, None, None].to(x)))
    return cases


def of_tokens(dtype: torch.dtype, mean: float) -> list[Case]:
    from ti_train.hosts.diffusers.fused.tokens import AddedNorm, GatedGELU, Projections

    def gated(x: Tensor) -> Tensor:
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)

    weight, bias = drawn(dtype, 72), drawn(dtype, 72)
    weights = [drawn(dtype, width, 72) / 20 for width in (8, 8, 24)]

    def own(x: Tensor, *added: Tensor) -> tuple[Tensor, Tensor]:
        return AddedNorm.apply(x, *(added or [None]), weight, bias, 1e-5)

    def exact(x: Tensor, *added: Tensor) -> tuple[Tensor, Tensor]:
        total = sum(added, x)
        return total, F.layer_norm(total, [72], weight.to(x.dtype), bias.to(x.dtype), 1e-5)

    x, y = drawn(dtype, 1, 67, 72) + mean, drawn(dtype, 1, 67, 72)  # more tokens than a program has
    return [
        ([drawn(dtype, 1, 2, 2200)], GatedGELU.apply, gated),
        ([x], own, exact),
        ([x, y], own, exact),
        ([y], lambda x: Projections.apply(x, *weights), lambda x: tuple(x @ w.to(x).T for w in weights)),
    ]


def distances(dtype: torch.dtype, mean: float, programs: int) -> list[float]:
    """Of each case's outputs and gradients from those in float64, in parts of their length: the largest."""
    from ti_train.hosts.diffusers.fused import images

    images.PROGRAMS = programs  # if few, each has several rows of pixels
    torch.manual_seed(0)
    found = []
    for given, fused, exact in of_images(dtype, mean) + of_tokens(dtype, mean):
        leaves, precise = ([x.detach().to(t).requires_grad_() for x in given] for t in (dtype, torch.float64))
        ours, expected = (y if isinstance(y, tuple) else (y,) for y in (fused(*leaves), exact(*precise)))
        assert [(y.dtype, y.shape) for y in ours] == [(dtype, y.shape) for y in expected]
        dys = [torch.randn_like(y).to(dtype) for y in expected]
        gradients = torch.autograd.grad(ours, leaves, dys)
        wanted = torch.autograd.grad(expected, precise, [dy.double() for dy in dys])
        pairs = zip([*ours, *gradients], [*expected, *wanted], strict=True)
        found.append(max(float((a - b).norm() / b.norm()) for a, b in pairs))
    return found


def of_a_network(**settings: Any) -> list[float]:
    """How far a U-Net's output and gradients are from those without fusing, in parts of their length.

    The time embedding depends on the text too, as Stable Diffusion XL's. Memory that was not written is NaN.
    """
    from diffusers import UNet2DConditionModel

    from ti_train.hosts.diffusers.fused.network import fuse

    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 24), layers_per_block=1, norm_num_groups=2, cross_attention_dim=8,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), addition_embed_type="text_time",
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 8, **settings,
    ).requires_grad_(False)  # fmt: skip
    for parameter in unet.parameters():  # biases and norms are drawn as zeros and ones
        parameter += torch.randn_like(parameter) / 20
    noisy, time, size = torch.randn(2, 4, 8, 8), torch.tensor([300.0]), torch.ones(2, 6)
    text, pooled = torch.randn(2, 7, 8, requires_grad=True), torch.randn(2, 8, requires_grad=True)

    def all_three() -> list[Tensor]:
        text.grad = pooled.grad = None
        out = unet(noisy, time, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": size}).sample
        out.backward(out.detach().cos())
        return [out.detach(), text.grad, pooled.grad]

    before = all_three()
    fuse(unet)
    found = all_three()
    keep_no_inputs(unet)
    with results_dropped(unet), checkpointed(unet, what=Recomputed.FEED_FORWARDS):  # as a step with little memory
        found += all_three()
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, before * 2, strict=True)]


def interpreted() -> dict[str, list[float]]:
    torch.utils.deterministic.fill_uninitialized_memory = True
    return {
        "float16": distances(torch.float16, mean=0, programs=528),
        "large means": distances(torch.float32, mean=200, programs=2),
        "network": of_a_network(),
        "network of XL": of_a_network(use_linear_projection=True, transformer_layers_per_block=2),
    }


@pytest.fixture(scope="module")
def found():
    return apart(interpreted, environment=INTERPRETED)


@needs_triton
@pytest.mark.parametrize(("case", "bound"), {"float16": 4e-4, "large means": 2e-5}.items())
def test_outputs_and_gradients_are_those_of_exact_arithmetic_but_for_rounding(found, case, bound):
    assert len(found[case]) == 2 * len(SHAPES) + 1 + 4, "of images, and of tokens"
    assert max(found[case]) < bound


@needs_triton
@pytest.mark.parametrize("case", ["network", "network of XL"])
def test_a_fused_network_has_the_same_output_and_gradients(found, case):
    assert len(found[case]) == 2 * 3
    assert max(found[case]) < 1e-5


@needs_triton
def test_blocks_that_compute_something_else_stay_as_they_are(pipeline_folder):
    from diffusers.models.attention_processor import AttnProcessor

    from ti_train.hosts.diffusers.fused.network import fuse

    unet = DiffusersHost.load(pipeline_folder, "cpu").unet
    blocks = [m for m in unet.modules() if type(m).__name__ in ("ResnetBlock2D", "BasicTransformerBlock")]
    scaled = next(block for block in blocks if hasattr(block, "conv1"))
    scaled.time_embedding_norm = "scale_shift"  # multiplies what the second norm gives before SiLU
    crossed, sliced = [block for block in blocks if hasattr(block, "attn1")][:2]
    crossed.only_cross_attention = True
    sliced.attn2.set_processor(AttnProcessor())
    fuse(unet)
    assert {block for block in blocks if "forward" not in vars(block)} == {scaled, crossed, sliced}
    assert isinstance(scaled.nonlinearity, nn.SiLU)
    assert scaled.norm1.forward.keywords == scaled.norm2.forward.keywords == {}, "no SiLU within"


def on_a_card() -> bool:
    return can_fuse(torch.device("cuda"), torch.float32)


def test_a_card_for_which_triton_compiles_nothing_has_pytorchs_own_kernels():
    assert on_card(on_a_card) is False


@needs_triton
def test_a_host_whose_card_can_is_fused(pipeline_folder, monkeypatch):
    monkeypatch.setattr(host, "can_fuse", lambda *_: True)
    unet = DiffusersHost.load(pipeline_folder, "cpu").unet
    kinds = ("GroupNorm", "GEGLU", "ResnetBlock2D", "BasicTransformerBlock")
    layers = [layer for layer in unet.modules() if type(layer).__name__ in kinds]
    assert {type(layer).__name__ for layer in layers} == set(kinds)
    assert all("forward" in vars(layer) for layer in layers)


@needs_triton
def test_a_norm_of_tokens_is_pytorchs():
    from ti_train.hosts.diffusers.fused.layers import normalized

    norm, x = nn.GroupNorm(2, 4), torch.randn(3, 4, 5)
    assert torch.equal(normalized(norm, x), norm(x))
