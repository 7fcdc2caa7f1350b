"""What the names in a pickle resolve to: stand-ins that hold data, and never the code that the names mean.

The table has what embeddings consist of, and what AUTOMATIC1111's safe loader (modules/safe.py) and torch's
weights-only loader let through beside them: numpy's arrays and scalars, tensors of an Apple GPU, dtypes, devices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError

MOST_NUMBERS = 2**24  # per file: tensors may share one storage
MOST_DIMENSIONS = 8
NUMBERS = re.compile(r"[biuf]\d{1,2}")  # numpy's codes of booleans, integers and floats


class Tuple(tuple[Any, ...]):
    """A tuple in the file. It is no key of a dict, nor in a set.

    Each hash of a tuple hashes all that is in it: by references, exponentially many values, or deeper than C's stack.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        raise UserError("has tuples for names, as no embedding has: it is another kind of file, or malicious.")


@dataclass  # without a hash, for the same reason
class Storage:
    """A storage in the file, which tensors are views of."""

    dtype: torch.dtype
    key: str


@dataclass
class Strided:
    """A tensor whose values have not been read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self, storage: Callable[[str], bytearray]) -> Tensor:
        """Reads the values from the storages' bytes. Raises ValueError if they are incomplete."""
        data = storage(self.storage.key)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        itemsize = self.dtype.itemsize
        if math.prod(self.shape) > MOST_NUMBERS or last >= len(data) // itemsize:
            raise ValueError("a tensor is larger than its storage")
        whole = torch.frombuffer(data, dtype=self.dtype, count=len(data) // itemsize)
        return whole.as_strided(self.shape, self.stride, self.offset).clone()


class NumpyType:
    """Stands in for numpy.dtype; its byte order is in its state."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def set_state(self, state: Any) -> None:
        self.order = "=" if state[1] == "|" else state[1]

    def read(self, data: Any) -> np.ndarray[Any, Any] | None:
        """The numbers in some bytes; None for objects, texts and dates."""
        if not isinstance(data, bytes) or not NUMBERS.fullmatch(self.code) or self.order not in ("=", "<", ">"):
            return None
        return np.frombuffer(data, np.dtype(self.order + self.code)).astype(self.code)


class Array:
    """Stands in for numpy.ndarray, whose content is in its state."""

    shape: tuple[int, ...] = ()
    state: tuple[Any, ...] = ()

    def set_state(self, state: Any) -> None:
        _, self.shape, *self.state = state
        few = len(self.shape) <= MOST_DIMENSIONS and _are_sizes(*self.shape)
        if not few or math.prod(self.shape) > MOST_NUMBERS:
            raise ValueError("an array is larger than an embedding")

    def tensor(self, _: Callable[[str], bytearray]) -> Tensor | None:
        """The values; None for an array of anything but numbers. Raises ValueError if they are incomplete."""
        dtype, fortran, data = self.state
        numbers = dtype.read(data)
        if numbers is None:
            return None
        return torch.from_numpy(numbers.reshape(self.shape, order="F" if fortran else "C").copy())


class ParameterDict(dict[str, Any]):
    """Stands in for torch.nn.ParameterDict and ParameterList, whose content is in their state."""

    def set_state(self, state: Any) -> None:
        self.update(state["_parameters"])


class Beside:
    """Stands in for what may be beside the vectors, and says nothing about them."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def set_state(self, _: Any) -> None: ...


def _are_sizes(*numbers: Any) -> bool:
    """Whether all are whole numbers from 0: a product with a text would be a long text."""
    return all(isinstance(number, int) and number >= 0 for number in numbers)


STATEFUL = (NumpyType, Array, ParameterDict, Beside)


def _strided(storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Strided:
    if len(shape) > MOST_DIMENSIONS or not _are_sizes(offset, *shape, *stride):
        raise ValueError("a tensor has sizes of no embedding")
    return Strided(storage, offset, tuple(shape), tuple(stride), storage.dtype)


def _strided_v3(storage: Storage, offset: int, shape: Any, stride: Any, _: Any, __: Any, dtype: Any, *___: Any) -> Any:
    """For dtypes without a storage class: the storage is of bytes."""
    if not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor of an unknown type")
    return _strided(Storage(dtype, storage.key), offset, shape, stride)


def _first(data: Any, *_: Any) -> Any:
    """Of a parameter, or of a tensor of another device: the tensor or array."""
    return data


def _subclass(rebuild: Any, _: Any, arguments: Any, __: Any) -> Any:
    """Of a tensor with attributes: the tensor."""
    if rebuild not in REBUILDS:
        raise ValueError("a tensor that is rebuilt in an unknown way")
    return rebuild(*arguments)


def _array(*_: Any) -> Array:
    return Array()


def _number(dtype: NumpyType, data: Any) -> Any:
    numbers = dtype.read(data)
    return None if numbers is None else numbers[0].item()


def _encoded(text: str, _: str = "latin1") -> bytes:
    """Protocol 2 writes bytes as a text in Latin-1."""
    return text.encode("latin1")


def _dict(*_: Any) -> dict[Any, Any]:
    """A defaultdict is created with the type of its defaults."""
    return {}


REBUILDS = (_strided, _strided_v3, _first)
UNTYPED = torch.uint8
STAND_INS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _strided,
    ("torch._utils", "_rebuild_tensor_v2"): _strided,
    ("torch._utils", "_rebuild_tensor_v3"): _strided_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("torch", "Tensor"): Beside,
    ("torch.nn.parameter", "Parameter"): Beside,
    ("torch", "device"): Beside,
    ("torch", "Size"): Tuple,
    ("torch.nn.modules.container", "ParameterDict"): ParameterDict,
    ("torch.nn.modules.container", "ParameterList"): ParameterDict,
    ("torch.storage", "UntypedStorage"): UNTYPED,
    ("torch", "UntypedStorage"): UNTYPED,
    ("collections", "OrderedDict"): dict,
    ("collections", "Counter"): dict,
    ("collections", "defaultdict"): _dict,
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): NumpyType,
    ("numpy", "ndarray"): Array,
    ("pytorch_lightning.callbacks", "model_checkpoint"): Beside,
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"): Beside,
}
for _module in ("__builtin__", "builtins"):  # Python 2's name, which protocols up to 2 write
    STAND_INS[_module, "set"] = set
    STAND_INS |= {(_module, name): Beside for name in ("list", "dict", "int", "float", "str", "bool")}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of numpy 1 and 2
    STAND_INS |= {(_module, "_reconstruct"): _array, (_module, "scalar"): _number}
STAND_INS |= {
    ("torch", f"{name}Storage"): dtype
    for name, dtype in {
        "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}  # fmt: skip
STAND_INS |= {("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
