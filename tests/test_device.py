"""Full memory is told by one rule, whoever says it, and in a sentence."""

from __future__ import annotations

import pytest
import torch

from ti_train.device import ReadBack, is_out_of_memory, out_of_memory_as_user_error, upload
from ti_train.errors import UserError

MAY_FAIL = getattr(torch, "AcceleratorError", RuntimeError)  # from PyTorch 2.8


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
        torch.cuda.OutOfMemoryError("XPU out of memory. Tried to allocate 4.66 GiB. GPU 0 has a total capacity of"),
        MAY_FAIL("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call"),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
        RuntimeError("HIP error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.13 GB, other allocations: 928.00 KB, max allowed: "),
        RuntimeError("XPU out of memory. Tried to allocate 1.00 GiB (GPU 0; 15.56 GiB total capacity; 990.00 MiB"),
        RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
        RuntimeError("UR backend failed. UR backend returns:40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"),
        RuntimeError("Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried"),
        MemoryError(),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:70],
)
def test_full_memory_in_the_words_of_every_library(error):
    assert is_out_of_memory(error)


def test_the_number_of_a_drivers_error_is_enough():
    error = MAY_FAIL("an error of the driver")
    error.error_code = 2
    assert is_out_of_memory(error) == (MAY_FAIL is not RuntimeError)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)"),
        MAY_FAIL("CUDA error: device-side assert triggered"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors_are_none_of_it(error):
    assert not is_out_of_memory(error)


def test_people_read_what_would_fit_and_whose_memory_it_is():
    told = "The GPU ran out of memory. Close programs. (CUDA out of memory)"
    with pytest.raises(UserError) as raised, out_of_memory_as_user_error("Close programs."):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert str(raised.value) == told
    with pytest.raises(UserError, match=r"^The computer ran out of memory. Close programs.$"):  # noqa: SIM117
        with out_of_memory_as_user_error("Close programs."):
            raise MemoryError
    with pytest.raises(KeyError), out_of_memory_as_user_error("Close programs."):
        raise KeyError


def test_on_the_cpu_transfers_are_none():
    tensor = torch.ones(3)
    assert upload(tensor, torch.device("cpu")) is tensor
    assert ReadBack(tensor).read() == [1, 1, 1]
