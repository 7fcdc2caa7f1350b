"""Descent on the sphere: the directions of the vectors are trained, at the norms that they have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .optimizer import Optimizer, correction

MEMORY = 0.9  # of the average size of the gradient
KAPPA = 0.1  # a pull of 1 in units of that size


class SphereDescent(Optimizer):
    """Directional Textual Inversion (2025, kunheek/dti): each step turns each vector by about `rate`, in radians.

    The gradient is projected to the tangent and has length 1 in each vector, as in all of the authors' experiments
    (their beta is 0). The pull is the prior of a von Mises-Fisher distribution around the initial direction. Theirs is
    added to the raw gradient, so it changes its meaning with the model and the loss; here it is in units of the
    gradient's average size.
    """

    def _updated(self, i: int, gradient: Tensor, rate: float, finite: Tensor) -> Tensor:
        leaf = self.leaves[i]
        place = F.normalize(leaf, dim=-1)
        slope = tangent(gradient, place)
        home = self.groups[i].home
        if self.pull and home is not None:
            pull = self.pull * KAPPA * self._size(i, slope, finite)
            slope = slope - pull * tangent(F.normalize(home, dim=-1), place)
        norm: Tensor = leaf.norm(dim=-1, keepdim=True)
        return norm * F.normalize(place - rate * F.normalize(slope, dim=-1), dim=-1)

    def _size(self, i: int, slope: Tensor, finite: Tensor) -> Tensor:
        """The average length of the gradient of each vector over the latest steps, [n, 1]."""
        size = slope.norm(dim=-1, keepdim=True)
        before = self._moments(i, step=torch.zeros_like(finite, dtype=torch.float32), size=torch.zeros_like(size))
        count, average = before["step"] + 1, torch.lerp(before["size"], size, 1 - MEMORY)
        self._remember(i, finite, before, step=count, size=average)
        return average / correction(MEMORY, count)


def tangent(vectors: Tensor, place: Tensor) -> Tensor:
    """The part of vectors that is orthogonal to unit vectors, both [n, width]."""
    return vectors - (vectors * place).sum(dim=-1, keepdim=True) * place
