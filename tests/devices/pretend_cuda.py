"""A pretended CUDA device, for finding faults of devices on a computer that has none.

`install()` gives a CUDA build of PyTorch without a driver a "cuda:0" whose memory is the CPU's. Its tensors are plain
`torch.Tensor`s; only the kernels at the bottom are replaced (card_kernels.py), and what programs ask of `torch.cuda`. A
run on it computes what it computes on the CPU.

It cannot show speed, a card's rounding and nondeterminism, cuDNN, fused attention and its backward, asynchronous
errors, streams and races, fragmentation, workspaces, several cards, Triton.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from .card import CUDA, GIB, Card, count_used
from .card_kernels import count, register
from .graphs import graphed

__all__ = ["Card", "install", "reason_against"]

# By PyTorch's version the place of hasPrimaryContext among the virtual methods of CUDAHooks: a wrong one is a crash
HAS_PRIMARY_CONTEXT = {"2.14": 4}
METHODS = 128  # enough of them


def reason_against() -> str | None:
    """Why no card can be pretended in this process, or None."""
    version = ".".join(torch.__version__.split(".")[:2])
    if sys.platform != "linux":
        return f"the pretended card is made for Linux; this is {sys.platform}"
    if torch.version.cuda is None:
        return f"the pretended card needs a CUDA build of PyTorch; this is {torch.__version__}"
    if version not in HAS_PRIMARY_CONTEXT:
        known = ", ".join(HAS_PRIMARY_CONTEXT)
        return f"the pretended card is made for PyTorch {known}; this is {torch.__version__}"
    if torch.cuda.is_available():
        return "there is a real CUDA device"
    return None


def install(gib: float = 24, capability: tuple[int, int] = (8, 6)) -> None:
    """Before anything has asked whether there is a CUDA device; once in a process."""
    Card.total, Card.capability = int(gib * GIB), capability
    _answer_the_engine()
    for name, answer in _answers().items():
        for module in (torch.cuda, torch.cuda.memory, torch.cuda.random):
            if module is torch.cuda or hasattr(module, name):
                setattr(module, name, answer)
    torch.backends.cudnn.is_available = lambda: True
    _kept.append(register())


_kept: list[Any] = []  # what must not be collected while the process lives


@ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_byte)
def _no_context(_: Any, __: int) -> bool:
    """Autograd's engine asks the driver whether a device has streams to wait for."""
    return False


def _answer_the_engine() -> None:
    """Puts `_no_context` into a copy of the method table of PyTorch's CUDAHooks; the table is put back at exit."""
    torch._C._ensureCUDADeviceGuardSet()  # torch's own stand-in for devices and streams without a driver
    place = HAS_PRIMARY_CONTEXT[".".join(torch.__version__.split(".")[:2])]
    library = ctypes.CDLL(str(next(Path(torch.__file__).parent.glob("lib/libtorch_cpu.so"))))
    library._ZN2at6detail12getCUDAHooksEv.restype = ctypes.POINTER(ctypes.c_void_p)
    hooks = library._ZN2at6detail12getCUDAHooksEv()  # its first word: where its methods are
    # two words before the methods belong to the table: the offset to the top and the type
    methods = (ctypes.c_void_p * (METHODS + 2)).from_buffer_copy(ctypes.string_at(hooks[0] - 16, 8 * (METHODS + 2)))
    methods[2 + place] = ctypes.cast(_no_context, ctypes.c_void_p).value
    atexit.register(hooks.__setitem__, 0, hooks[0])
    hooks[0] = ctypes.addressof(methods) + 16
    _kept.append(methods)


class Stream:
    """A stream or an event: everything has happened already."""

    device, device_index, stream_id, cuda_stream, priority = CUDA, 0, 0, 0, 0
    __init__ = __enter__ = __exit__ = lambda *_, **__: None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: True


class Event(Stream):
    def synchronize(self) -> None:
        count("WAIT for an event")


def _answers() -> dict[str, Any]:
    """What programs ask of torch.cuda."""
    major, minor = Card.capability
    properties = types.SimpleNamespace(
        name="Pretended GPU", major=major, minor=minor, total_memory=Card.total, multi_processor_count=80,
        is_integrated=0, gcnArchName="", warp_size=32,
    )  # fmt: skip
    constant = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0, "is_bf16_supported": True,
        "get_device_name": "Pretended GPU", "get_device_properties": properties,
        "get_device_capability": Card.capability, "get_arch_list": ["sm_86"], "get_allocator_backend": "native",
        "cudart": types.SimpleNamespace(cudaHostRegister=lambda *_: 1, cudaHostUnregister=lambda *_: 1),
        "_lazy_init": None, "init": None, "set_device": None, "empty_cache": None, "ipc_collect": None,
        "set_stream": None, "graph_pool_handle": None,
    }  # fmt: skip
    asked = {name: lambda *_, _answer=answer, **__: _answer for name, answer in constant.items()}
    return asked | {
        "_initialized": True, "synchronize": lambda *_: count("synchronize"),
        "mem_get_info": lambda *_: (Card.total - count_used(), Card.total), "memory_stats": _statistics,
        "memory_allocated": lambda *_: count_used(), "memory_reserved": lambda *_: count_used(),
        "max_memory_allocated": lambda *_: Card.peak, "reset_peak_memory_stats": _forget_peak,
        "get_rng_state": lambda *_: Card.generator.get_state(),
        "set_rng_state": lambda state, *_: Card.generator.set_state(state),
        "manual_seed": lambda seed: Card.generator.manual_seed(seed),
        "manual_seed_all": lambda seed: Card.generator.manual_seed(seed),
        "Stream": Stream, "Event": Event, "current_stream": Stream, "default_stream": Stream,
        "make_graphed_callables": graphed,
        "stream": lambda stream: stream or Stream(), "device": lambda *_: contextlib.nullcontext(),
    }  # fmt: skip


def _statistics(*_: Any) -> Counter[str]:
    now = {f"{kind}_bytes.all.current": count_used() for kind in ("active", "reserved", "allocated")}
    return Counter(now | {"allocated_bytes.all.peak": Card.peak})


def _forget_peak(*_: Any) -> None:
    Card.peak = count_used()
