"""The optimizer of the vectors, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def adamw(leaves: Iterable[Tensor]) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) without decay: a word's vector has no reason to shrink towards nothing."""
    return torch.optim.AdamW(list(leaves), lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A copy of the optimizer's state: "0.exp_avg" is the first leaf's first moment."""
    state = optimizer.state_dict()["state"]
    return {f"{leaf}.{key}": value.detach().clone() for leaf, values in state.items() for key, value in values.items()}


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what state_tensors gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        leaf, key = name.split(".", 1)
        state.setdefault(int(leaf), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
