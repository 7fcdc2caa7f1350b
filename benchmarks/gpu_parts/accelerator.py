"""The memory and the speed of an accelerator of any maker: what its module of torch (cuda, xpu, mps) tells."""

from __future__ import annotations

import gc
from typing import Any

import torch
from timing import timed

GIB = 2**30
NOT_TOLD = "not told by torch"


def backend(device: torch.device) -> Any:
    """torch.cuda (ROCm's too), torch.xpu, torch.mps or torch.cpu."""
    return getattr(torch, device.type)


def give_back(device: torch.device) -> None:
    """Unused memory, to the driver."""
    gc.collect()  # exceptions and their frames hold tensors in circles
    if hasattr(backend(device), "empty_cache"):
        backend(device).empty_cache()


def allocated(device: torch.device) -> int | None:
    """Bytes in tensors now; None where torch does not tell."""
    for name in ("memory_allocated", "current_allocated_memory"):  # cuda and xpu, mps
        if hasattr(backend(device), name):
            return int(getattr(backend(device), name)())
    return None


def reset_peak(device: torch.device) -> None:
    if hasattr(backend(device), "reset_peak_memory_stats"):
        backend(device).reset_peak_memory_stats()


def peak(device: torch.device) -> int | None:
    """Most bytes in tensors since reset_peak; None where torch does not tell (mps, cpu)."""
    tells = hasattr(backend(device), "max_memory_allocated")
    return int(backend(device).max_memory_allocated()) if tells else None


def in_gib(size: int | None) -> str | float:
    return NOT_TOLD if size is None else round(size / GIB, 2)


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int, times: int = 50) -> float:
    """FLOP/s of large matrix products, the most that a step could reach: of the fastest of a few series.

    A GPU raises its clock within the first tenths of a second, in which products take twice as long.
    """
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(times):
            torch.mm(a, b)

    return times * 2 * side**3 / min(timed(multiply, device) for _ in range(5))
