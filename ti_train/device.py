"""What the core asks of PyTorch's devices: whether a memory is full, what is unused of it, and transfers for which
nobody waits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

import torch
from torch import Tensor

from .errors import UserError

CUDA_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, and HIP's of the same number
ON_THE_CPU = "DefaultCPUAllocator"
OUT_OF_MEMORY = re.compile(
    r"out of memory"  # of the CUDA and HIP runtimes, Metal ("MPS backend out of memory") and XPU before PyTorch 2.5
    r"|alloc(ation)?_?failed"  # cuBLAS, cuDNN, cuFFT, cuSOLVER, hipBLAS, MIOpen: they allocate by themselves
    r"|(UR_RESULT|PI)_ERROR_OUT_OF_(DEVICE_MEMORY|HOST_MEMORY|RESOURCES)"  # XPU, from its driver
    rf"|{ON_THE_CPU}",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a memory is full; libraries below PyTorch say so in words alone."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):  # PyTorch's one class, for XPU too
        return True
    if isinstance(error, getattr(torch, "AcceleratorError", ())):  # from PyTorch 2.8
        return getattr(error, "error_code", None) == CUDA_OUT_OF_MEMORY or bool(OUT_OF_MEMORY.search(str(error)))
    return isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))


@contextmanager
def out_of_memory_as_user_error(advice: str) -> Iterator[None]:
    """Raises UserError, with what would fit, where the memory is full."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(out_of_memory_message(error, advice)) from None


def out_of_memory_message(error: Exception, advice: str) -> str:
    """The sentence for people: whose memory is full, what would fit, and what the library said."""
    of_the_cpu = isinstance(error, MemoryError) or ON_THE_CPU in str(error)
    said = shorten(str(error), 160, placeholder=" ...")
    return f"The {'computer' if of_the_cpu else 'GPU'}'s memory is full. {advice}" + (f" ({said})" if said else "")


def empty_cache(device: torch.device) -> None:
    """Gives the memory that PyTorch keeps for later back to the driver: CUDA's, ROCm's, XPU's or MPS's; a CPU has none.

    (`torch.accelerator.empty_cache` is younger than the PyTorch that hosts ship.)
    """
    module = getattr(torch, device.type)
    if hasattr(module, "empty_cache"):
        module.empty_cache()


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device. From memory that is not pinned, CUDA would finish all queued work first."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class ReadBack:
    """Numbers on their way from the device: `read` waits for them, but for nothing that is queued after them."""

    def __init__(self, numbers: Tensor) -> None:
        """numbers: of one dimension."""
        self._numbers = numbers.to("cpu", non_blocking=numbers.is_cuda)  # CUDA: into pinned memory
        self._arrived = torch.cuda.Event() if numbers.is_cuda else None
        if self._arrived:
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def read(self) -> list[float]:
        if self._arrived:
            self._arrived.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers
