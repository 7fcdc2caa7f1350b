"""Asking PyTorch for kernels that give the same digits every time: a GPU's usual ones may add in changing order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn

from ..errors import UserError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it PyTorch refuses its deterministic mode to cuBLAS


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """PyTorch's deterministic mode while the context lasts, for this process; then the mode of before, a host's own.

    Raises UserError where an operation inside has no deterministic kernel.
    """
    if not wanted:
        yield
        return
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark
    workspace = os.environ.get(WORKSPACE)
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)  # not only a warning: fused attention is deterministic only then
    cudnn.deterministic, cudnn.benchmark = True, False  # benchmarking chooses kernels by their time
    try:
        yield
    except RuntimeError as error:
        operation, without, _ = str(error).partition(" does not have a deterministic implementation")
        if not without:
            raise
        raise UserError(
            f"PyTorch has no deterministic kernel for '{operation}' on this device, and the model uses it. Train with "
            "deterministic off; on a CPU every training is deterministic."
        ) from None
    finally:
        cudnn.deterministic, cudnn.benchmark = flags
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
