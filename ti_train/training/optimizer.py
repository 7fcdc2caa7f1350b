"""AdamW that skips non-finite updates without synchronizing with the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
SCALE = "loss_scale"


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) without weight decay, with loss scaling.

    The leaves hold gradients of `scale` times the loss, which keeps fp16 gradients in range. An update with a
    non-finite loss or gradient only halves the scale (Micikevicius et al. 2018, section 3.2). The scale is a power of
    two, so it is exact in fp32. Everything is computed on the leaves' device; torch.optim's AdamW can skip an update
    there only with its fused kernels, which older PyTorch has for CUDA alone.
    """

    def __init__(
        self,
        leaves: Sequence[Tensor],
        scale: float,
        clip: float = math.inf,
        state: Mapping[str, Tensor] | None = None,
        groups: Sequence[tuple[str, float]] | None = None,
    ) -> None:
        """clip: maximum norm of the gradient of a group. state: of an earlier optimizer, to resume from.

        groups: of each leaf, its group's name, and its unit: vectors are updated as if they were measured in it, which
        multiplies rate and gradient. None: one group.
        """
        self.leaves, self.clip = leaves, clip
        self.groups = groups or [("", 1.0)] * len(leaves)
        device = leaves[0].device
        # never modified in place, so that a shallow copy is a snapshot
        self.state = {SCALE: torch.tensor(scale)} | dict(state or {})
        self.state = {name: tensor.to(device, torch.float32) for name, tensor in self.state.items()}

    @property
    def scale(self) -> Tensor:
        return self.state[SCALE]

    @torch.no_grad()
    def step(self, loss: Tensor, rate: float) -> Tensor:
        """Updates the leaves that have gradients, and clears these. Returns the norm before clipping, a scalar."""
        gradients = {
            i: leaf.grad * self.groups[i][1] / self.scale for i, leaf in enumerate(self.leaves) if leaf.grad is not None
        }
        of_group: dict[str, list[Tensor]] = {}
        for i, gradient in gradients.items():
            of_group.setdefault(self.groups[i][0], []).append(gradient.norm())
        norms = {group: torch.stack(parts).norm() for group, parts in of_group.items()}
        norm: Tensor = torch.stack(list(norms.values())).norm()
        finite = loss.isfinite() & norm.isfinite()
        for i, gradient in gradients.items():
            group, unit = self.groups[i]
            self._update(i, gradient * (self.clip / (norms[group] + 1e-6)).clamp_max(1), rate * unit, finite)
            self.leaves[i].grad = None
        self.state[SCALE] = torch.where(finite, self.scale, (self.scale / 2).clamp_min(1))
        return norm

    def _update(self, i: int, gradient: Tensor, rate: float, finite: Tensor) -> None:
        """Updates leaf i if `finite` (Kingma & Ba 2015, algorithm 1)."""
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
    """1 - beta^count, by expm1: the subtraction would lose precision in fp32."""
    return -torch.expm1(count * math.log(beta))
