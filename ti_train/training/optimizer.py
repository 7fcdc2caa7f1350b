"""The optimizer of the vectors: AdamW, which skips an update that is not finite without asking the device about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
SCALE = "loss_scale"


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) without decay: a word's vector has no reason to shrink towards nothing.

    The leaves' gradients are those of `scale` times the loss: the scale keeps fp16's gradients in its range, and is
    halved by each update whose loss or gradient is not finite and which therefore changes nothing else (Micikevicius et
    al. 2018, section 3.2). It is a power of two, so that it changes no digit in fp32. All this happens on the leaves'
    device; torch.optim's AdamW skips there only in its fused kernels, which old PyTorch has for CUDA alone.
    """

    def __init__(
        self, leaves: Sequence[Tensor], scale: float, clip: float = math.inf, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """clip: the largest norm of all leaves' gradient. state: that of another, to go on from."""
        self.leaves, self.clip = leaves, clip
        device = leaves[0].device
        # never written to: an update puts new tensors in their place, so that a shallow copy is a snapshot
        self.state = {SCALE: torch.tensor(scale)} | dict(state or {})
        self.state = {name: tensor.to(device, torch.float32) for name, tensor in self.state.items()}

    @property
    def scale(self) -> Tensor:
        return self.state[SCALE]

    @torch.no_grad()
    def step(self, loss: Tensor, rate: float) -> Tensor:
        """Updates the leaves that have a gradient, and forgets it; returns its norm before it is clipped (a scalar)."""
        gradients = {i: leaf.grad / self.scale for i, leaf in enumerate(self.leaves) if leaf.grad is not None}
        norm: Tensor = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        finite = loss.isfinite() & norm.isfinite()
        for i, gradient in gradients.items():
            self._update(i, gradient * (self.clip / (norm + 1e-6)).clamp_max(1), rate, finite)
            self.leaves[i].grad = None
        self.state[SCALE] = torch.where(finite, self.scale, (self.scale / 2).clamp_min(1))
        return norm

    def _update(self, i: int, gradient: Tensor, rate: float, finite: Tensor) -> None:
        """Leaf i by the formula (Kingma & Ba 2015, algorithm 1), where `finite` is true."""
        leaf, state = self.leaves[i], self.state
        keys = [f"{i}.{key}" for key in ("step", "exp_avg", "exp_avg_sq")]
        zeros = torch.zeros_like(finite, dtype=torch.float32), torch.zeros_like(leaf), torch.zeros_like(leaf)
        before = [state.get(key, zero) for key, zero in zip(keys, zeros, strict=True)]
        count, mean, square = before
        count = count + 1
        mean = torch.lerp(mean, gradient, 1 - BETA1)
        square = torch.addcmul(BETA2 * square, gradient, gradient, value=1 - BETA2)
        corrected, root = mean / correction(BETA1, count), (square / correction(BETA2, count)).sqrt()
        leaf.copy_(torch.where(finite, leaf - rate * corrected / (root + EPSILON), leaf))
        for key, new, old in zip(keys, (count, mean, square), before, strict=True):
            state[key] = torch.where(finite, new, old)


def correction(beta: float, count: Tensor) -> Tensor:
    """1 - beta^count, whose digits fp32 would lose in the difference."""
    return -torch.expm1(count * math.log(beta))
