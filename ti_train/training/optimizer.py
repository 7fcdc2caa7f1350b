"""Optimizers that skip non-finite updates without synchronizing with the device; sphere.py has another one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
SCALE = "loss_scale"


def parts_of(leaf: Size) -> dict[str, tuple[tuple[Size, ...], float]]:
    """What the state of a leaf [n, width] may have in any optimizer -> its shapes, and the least that it may be."""
    row = Size((leaf[0], 1))
    steps = row, Size()  # earlier versions counted the steps of all rows together
    return {
        "step": (steps, 0.0),
        "exp_avg": ((leaf,), -math.inf),
        "exp_avg_sq": ((leaf,), 0.0),
        "size": ((row,), 0.0),
    }


@dataclass(frozen=True)
class Group:
    """What the vectors of one text encoder have in common.

    unit: vectors are updated as if they were measured in it, which multiplies rate and gradient. home: the initial
    vectors [n, width], for pulls; None for per-image tokens, which nothing pulls.
    """

    name: str = ""
    unit: float = 1.0
    home: Tensor | None = None


class Optimizer(ABC):
    """Updates leaves in place, with loss scaling.

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
        groups: Sequence[Group] | None = None,
        pull: float = 0.0,
    ) -> None:
        """clip: maximum norm of the gradient of a group. state: of an earlier optimizer, to resume from.

        groups: of each leaf; None: one group. pull: see config.py.
        """
        self.leaves, self.clip, self.pull = leaves, clip, pull
        self.groups = groups or [Group()] * len(leaves)
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
            i: leaf.grad * self.groups[i].unit / self.scale
            for i, leaf in enumerate(self.leaves)
            if leaf.grad is not None
        }
        of_group: dict[str, list[Tensor]] = {}
        for i, gradient in gradients.items():
            of_group.setdefault(self.groups[i].name, []).append(gradient.norm())
        norms = {group: torch.stack(parts).norm() for group, parts in of_group.items()}
        norm: Tensor = torch.stack(list(norms.values())).norm()
        finite = loss.isfinite() & norm.isfinite()
        for i, gradient in gradients.items():
            clipped = gradient * (self.clip / (norms[self.groups[i].name] + 1e-6)).clamp_max(1)
            self.leaves[i].copy_(torch.where(finite, self._updated(i, clipped, rate, finite), self.leaves[i]))
            self.leaves[i].grad = None
        self.state[SCALE] = torch.where(finite, self.scale, (self.scale / 2).clamp_min(1))
        return norm

    @abstractmethod
    def _updated(self, i: int, gradient: Tensor, rate: float, finite: Tensor) -> Tensor:
        """Leaf i after an update; its state counts the update if `finite`."""

    def _moments(self, i: int, **initial: Tensor) -> dict[str, Tensor]:
        """The state of leaf i by name, before this update."""
        return {key: self.state.get(f"{i}.{key}", value) for key, value in initial.items()}

    def _remember(self, i: int, finite: Tensor, before: Mapping[str, Tensor], **after: Tensor) -> None:
        for key, value in after.items():
            self.state[f"{i}.{key}"] = torch.where(finite, value, before[key])


class AdamW(Optimizer):
    """AdamW (Loshchilov & Hutter 2019) without weight decay; instead of it the norms can be pulled to the initial ones.

    A pull of 1 goes as far as the Pivotal Tuning script (cloneofsimo/lora): min(1, 100 * rate) of the way in each step.
    The script's norms are 0.4, about CLIP's mean; the initial ones suit every encoder, and vectors of a file.
    """

    def _updated(self, i: int, gradient: Tensor, rate: float, finite: Tensor) -> Tensor:
        """Kingma & Ba 2015, algorithm 1, for each row from its first gradient on."""
        leaf, zeros = self.leaves[i], torch.zeros_like(self.leaves[i])
        before = self._moments(i, step=zeros[:, :1], exp_avg=zeros, exp_avg_sq=zeros)
        mean = torch.lerp(before["exp_avg"], gradient, 1 - BETA1)
        square = torch.addcmul(BETA2 * before["exp_avg_sq"], gradient, gradient, value=1 - BETA2)
        count = steps_taken(before["step"], square)
        self._remember(i, finite, before, step=count, exp_avg=mean, exp_avg_sq=square)
        corrected, root = mean / correction(BETA1, count), (square / correction(BETA2, count)).sqrt()
        moved = leaf - rate * self.groups[i].unit * corrected / (root + EPSILON)
        home, share = self.groups[i].home, min(1.0, 100 * rate * self.pull)
        moved = pulled(moved, home, share) if share and home is not None else moved
        return torch.where(count > 0, moved, leaf)  # pulling where it is already would round it


def pulled(vectors: Tensor, home: Tensor, share: float) -> Tensor:
    """Vectors [n, width] whose norms have come a share of the way to those of `home`."""
    norms: Tensor = vectors.norm(dim=-1, keepdim=True)
    wanted: Tensor = home.norm(dim=-1, keepdim=True)
    return vectors * torch.lerp(norms, wanted, share) / norms.clamp_min(1e-12)


def steps_taken(before: Tensor, moments: Tensor) -> Tensor:
    """The steps of each row after another one, [n, 1]; 0 before its first gradient, without which its moments are 0.

    A vector that joins later, or a per-image token, would take several times the rate if rows were counted together.
    """
    return (before + 1) * (moments > 0).any(dim=-1, keepdim=True)


def correction(beta: float, count: Tensor) -> Tensor:
    """1 - beta^count, by expm1: the subtraction would lose precision in fp32. For no step as for one."""
    return -torch.expm1(count.clamp_min(1) * math.log(beta))
