"""PyTorch devices: out-of-memory errors, cached memory, and asynchronous transfers."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from textwrap import shorten

import torch
from torch import Tensor

from .errors import PassingError

CUDA_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation; the same number in HIP
ON_THE_CPU = "DefaultCPUAllocator"
LOWER_RESOLUTION = "Use a lower resolution, or close other programs that use the memory."
OUT_OF_MEMORY = re.compile(
    r"out of memory"  # of the CUDA and HIP runtimes, Metal ("MPS backend out of memory") and XPU before PyTorch 2.5
    r"|alloc(ation)?_?failed"  # cuBLAS, cuDNN, cuFFT, cuSOLVER, hipBLAS, MIOpen, which allocate by themselves
    r"|(UR_RESULT|PI)_ERROR_OUT_OF_(DEVICE_MEMORY|HOST_MEMORY|RESOURCES)"  # XPU driver
    rf"|{ON_THE_CPU}",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an out-of-memory error; libraries below PyTorch report it only in the message."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):  # raised for XPU too
        return True
    if isinstance(error, getattr(torch, "AcceleratorError", ())):  # from PyTorch 2.8
        return getattr(error, "error_code", None) == CUDA_OUT_OF_MEMORY or bool(OUT_OF_MEMORY.search(str(error)))
    return isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))


@contextmanager
def out_of_memory_as_user_error(advice: str = LOWER_RESOLUTION) -> Iterator[None]:
    """Turns an out-of-memory error into a PassingError. advice: what would need less memory."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise PassingError(out_of_memory_message(error, advice)) from None


def out_of_memory_message(error: Exception, advice: str = LOWER_RESOLUTION) -> str:
    """The message for users: which memory, `advice`, and the library's own message."""
    of_the_cpu = isinstance(error, MemoryError) or ON_THE_CPU in str(error)
    original = shorten(str(error), 160, placeholder=" ...")
    device = "computer" if of_the_cpu else "GPU"
    return f"The {device} ran out of memory. {advice}" + (f" ({original})" if original else "")


def empty_cache(device: torch.device) -> None:
    """Releases PyTorch's cached memory to the driver of CUDA, ROCm, XPU or MPS; does nothing on a CPU.

    (`torch.accelerator.empty_cache` is newer than the PyTorch versions of some hosts.)
    """
    module = getattr(torch, device.type)
    if hasattr(module, "empty_cache"):
        module.empty_cache()


def return_freed_memory(device: torch.device) -> None:
    """Gives what PyTorch has freed on a CPU back to the system, with the GNU C library; else does nothing.

    Its version 2.36 leaves most of it with the process and seldom uses it again: with a text encoder of CLIP's size a
    process grew by 70 MB with each step.
    """
    if device.type == "cpu":
        _malloc_trim()(0)


@cache
def _malloc_trim() -> Callable[[int], object]:
    there = sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim")  # musl has none
    return library.malloc_trim if there else lambda _keep: None


def total_memory(device: torch.device) -> int | None:
    """Bytes of a GPU's memory; None where it cannot be asked for."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None


def free_memory(device: torch.device) -> int | None:
    """Bytes of a GPU's memory that the driver or PyTorch's cache has free; None where it cannot be asked for."""
    if device.type != "cuda":
        return None
    own = torch.cuda.memory_stats(device)  # once: a step asks for it, and PyTorch collects all of them each time
    cached: int = own.get("reserved_bytes.all.current", 0) - own.get("allocated_bytes.all.current", 0)
    return torch.cuda.mem_get_info(device)[0] + cached


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a CPU tensor to the device, without waiting for queued work: CUDA needs pinned memory for that."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class ReadBack:
    """An asynchronous copy of numbers to the CPU. `read` waits for it, but not for work queued after it."""

    def __init__(self, numbers: Tensor) -> None:
        """numbers: [n]."""
        self._numbers = numbers.to("cpu", non_blocking=numbers.is_cuda)  # CUDA copies to pinned memory
        self._arrived = torch.cuda.Event() if numbers.is_cuda else None
        if self._arrived:
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def read(self) -> list[float]:
        if self._arrived:
            self._arrived.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers
