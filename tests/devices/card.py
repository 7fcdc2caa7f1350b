"""The pretended card: its memory, and tensors that lie in it.

A tensor of "cuda:0" is made by DLPack, which takes an address and the name of a device and asks no driver; the address
is the CPU's. The memory is freed by the C library, not by Python: autograd frees tensors while exceptions are on their
way.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

GIB = 2**30
CUDA = torch.device("cuda", 0)


class Card:
    """What is pretended, and what has been seen of it: one card for a process."""

    total = 24 * GIB  # bytes
    computes = True  # off: large tensors are allocated, and no kernel writes into them (uncomputed.py)
    used = 0  # bytes at the last count: what has been freed since is still in it
    peak = 0  # the most that has been used at once, bytes
    capability = (8, 6)
    generator = torch.Generator()  # of the numbers that are drawn on the card
    seen: ClassVar[Counter[str]] = Counter()  # kernels by name, and "WAIT for ..." for what the host had to wait
    fail_at: Callable[[str], bool] | None = None  # asked before each kernel: is the memory full now?
    blocks: ClassVar[list[tuple[StorageWeakRef, int]]] = []  # every storage on the card, and its bytes


def take(size: int, name: str) -> None:
    """Raises torch.OutOfMemoryError where `size` more bytes do not fit, or where the test wants it."""
    over = Card.used + size > Card.total and count_used() + size > Card.total
    if over or (Card.fail_at is not None and Card.fail_at(name)):
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes in {name} (pretended).")


def count_used() -> int:
    """The bytes that are still used."""
    Card.blocks = [block for block in Card.blocks if not block[0].expired()]
    Card.used = sum(size for _, size in Card.blocks)
    return Card.used


def remember(tensor: Tensor, size: int) -> None:
    """Counts a new tensor's bytes until its storage is freed; a count only where there could be a new peak."""
    Card.blocks.append((StorageWeakRef(tensor.untyped_storage()), size))
    Card.used += size
    if Card.used > Card.peak:
        Card.peak = max(Card.peak, count_used())


def to_card(cpu: Tensor, copied: bool = True) -> Tensor:
    """A new tensor of the card with what a CPU tensor holds, and its strides where it has no gaps."""
    tensor = allocate(cpu)
    if copied and tensor.numel():
        on_cpu(tensor).copy_(cpu)
    return tensor


def allocate(like: Tensor) -> Tensor:
    """A new tensor of the card with a tensor's shape and type, and its strides where it has no gaps; nothing in it."""
    extent = 1 + sum((n - 1) * s for n, s in zip(like.shape, like.stride(), strict=True)) if like.numel() else 0
    like = like if extent == like.numel() else torch.empty_like(like, memory_format=torch.contiguous_format)
    size = like.numel() * like.itemsize
    take(size, "an allocation")
    tensor = _tensor(0, size, like, KDL_CUDA)
    if size:
        remember(tensor, size)
    return tensor


def on_cpu(tensor: Tensor) -> Tensor:
    """The CPU's tensor over the memory of a tensor of the card."""
    if tensor.numel() == 0:
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
    return _tensor(tensor.data_ptr(), 0, tensor, KDL_CPU)


# DLPack (dlpack.h, version 0.8): a DLManagedTensor, then the shape and the strides, in front of the data

KDL_CPU, KDL_CUDA = 1, 2
SHAPE, MOST, HEAD = 64, 24, 512  # where the shape begins, dimensions at most, where the data begins; bytes
ALIGNMENT = 64
CODES = {  # dtype -> DLDataTypeCode, bits
    torch.int8: (0, 8), torch.int16: (0, 16), torch.int32: (0, 32), torch.int64: (0, 64), torch.uint8: (1, 8),
    torch.float16: (2, 16), torch.float32: (2, 32), torch.float64: (2, 64), torch.bfloat16: (4, 16), torch.bool: (6, 8),
}  # fmt: skip

_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


@functools.cache
def _c_library() -> tuple[Callable[[int, int], int], int | None]:
    """aligned_alloc, and the address of free. When it is first wanted: Windows has no such library."""
    library = ctypes.CDLL(None)
    library.aligned_alloc.restype, library.aligned_alloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t, ctypes.c_size_t)
    return library.aligned_alloc, ctypes.cast(library.free, ctypes.c_void_p).value


def _tensor(address: int, size: int, like: Tensor, device: int) -> Tensor:
    """A tensor over memory at `address`, or, where that is 0, over `size` new bytes."""
    allocate, free = _c_library()
    block = allocate(ALIGNMENT, HEAD + (0 if address else size + -size % ALIGNMENT + ALIGNMENT))
    head = (ctypes.c_char * HEAD).from_address(block)
    code, bits = CODES.get(like.dtype, (1, 8 * like.itemsize))
    shape, strides = block + SHAPE, block + SHAPE + 8 * MOST
    # data, device (type, id), dimensions, dtype (code, bits, lanes), shape, strides, offset, context, deleter
    fields = address or block + HEAD, device, 0, like.dim(), code, bits, 1, shape, strides, 0, 0, free
    struct.pack_into("=QiiiBBHQQQQQ", head, 0, *fields)
    _pack(head, SHAPE, like.shape)
    _pack(head, SHAPE + 8 * MOST, like.stride())
    tensor: Tensor = torch._C._from_dlpack(_capsule(block, b"dltensor", None))
    return tensor if like.dtype in CODES else tensor.view(like.dtype)


def _pack(head: ctypes.Array[ctypes.c_char], place: int, numbers: Sequence[int]) -> None:
    struct.pack_into(f"={len(numbers)}q", head, place, *numbers)
