"""PyTorch's deterministic mode: the default GPU kernels may sum in a different order each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn

from ..errors import UserError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS is deterministic only with this variable


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Enables deterministic mode in the context, for the whole process, and restores the previous mode.

    Raises UserError if an operation inside has no deterministic kernel.
    """
    if not wanted:
        yield
        return
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark
    workspace = os.environ.get(WORKSPACE)
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)  # with warn_only fused attention stays nondeterministic
    cudnn.deterministic, cudnn.benchmark = True, False  # benchmarking may choose another kernel each time
    try:
        yield
    except RuntimeError as error:
        operation, without, _ = str(error).partition(" does not have a deterministic implementation")
        if not without:
            raise
        raise UserError(
            f"PyTorch has no deterministic kernel for '{operation}' on this device, and the model uses it. Turn "
            "deterministic off, or train on the CPU, where every run is deterministic."
        ) from None
    finally:
        cudnn.deterministic, cudnn.benchmark = flags
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
