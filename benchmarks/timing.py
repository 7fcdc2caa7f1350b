"""Seconds and memory, for benchmarks under any host's Python."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device is done with it."""
    began = time.perf_counter()
    work()
    getattr(torch, device.type).synchronize()  # torch.cuda, torch.xpu, torch.mps; of the CPU it does nothing
    return time.perf_counter() - began


def in_turns(step: Callable[[], object], bare: Callable[[], object], device: torch.device, count: int) -> str:
    """The medians of `count` pairs that take turns, and the median of their ratios; each is warmed up twice before."""
    for warm_up in (step, bare) * 2:
        warm_up()
    pairs = [(timed(step, device), timed(bare, device)) for _ in range(count)]
    steps, passes = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"step {steps:.4f} s   bare pass {passes:.4f} s   ratio {statistics.median(s / p for s, p in pairs):.3f}"


def peak_memory(device: torch.device) -> str:
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cuda = f", CUDA {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if device.type == "cuda" else ""
    return f"peak memory: process {process / 2**30:.2f} GiB{cuda}"
