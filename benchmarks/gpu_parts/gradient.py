"""Part 6: the gradient of the word's vectors in half precision against float32, at low, middle and high noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ti_train.data.dataset import encode_pictures
from ti_train.errors import UserError
from ti_train.host import Slot
from ti_train.prompts import PLACEHOLDER
from ti_train.training.micro_batches import MicroBatch

from .finding import Finding, Options
from .random_models import NAMES, random_host
from .runs import noise_pictures

LEVELS = {"low": 0.05, "middle": 0.5, "high": 0.95}  # of the table of noise levels
SIDE, SMALL_SIDE = 512, 64


def measure(options: Options) -> Iterator[Finding]:
    exact = gradients(random_host(options, "sd15", "float32", torch.float32), options)
    for dtype in ("float16", "bfloat16"):
        try:
            found = gradients(random_host(options, "sd15", dtype, torch.float32), options)
        except UserError as error:  # a dtype that the device does not have
            yield Finding(f"{NAMES['sd15']} in {dtype}", {"said": str(error)})
            continue
        figures: dict[str, str | float] = {}
        for level, wanted in exact.items():
            gradient = found[level]
            figures[f"{level} noise, cosine"] = float(torch.cosine_similarity(gradient, wanted, dim=0))
            figures[f"{level} noise, length"] = float(gradient.norm() / wanted.norm())
        yield Finding(f"{NAMES['sd15']} in {dtype}, against float32", figures)


def gradients(host: Any, options: Options) -> dict[str, Tensor]:
    """The gradient of one vector, [width] fp32 on the CPU, at each level."""
    (encoder,) = host.widths
    picture = encode_pictures(host, noise_pictures(SMALL_SIDE if options.small else SIDE, 1)).pictures[0]
    x0 = picture.mean[None].to(host.device)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)).to(host.device)
    weights, scale = torch.ones_like(x0[:, :1]), float(x0.numel())  # the loop scales by as much
    found = {}
    for level, share in LEVELS.items():
        sigma = host.sigmas[[int(share * len(host.sigmas))]]
        vector = host.vocabulary(encoder).rows("photo")[:1].clone().requires_grad_()
        part = MicroBatch(x0, noise, sigma, weights, [("a photo of a ", Slot(PLACEHOLDER))], [picture.size])
        with host.training():
            (part.losses(host, {PLACEHOLDER: {encoder: vector}}).sum() * scale).backward()
        assert vector.grad is not None
        found[level] = vector.grad[0].float().cpu() / scale
    return found
