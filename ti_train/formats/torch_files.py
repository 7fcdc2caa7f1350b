"""Files of torch.save (.pt, .bin): read without torch's loader, written so that A1111's safe loader accepts them.

A pickle is a program. This unpickler resolves only the few names in stand_ins.py, each to a stand-in defined there, so
no code that a file names is ever called. torch.load(weights_only=True) is not used: it rejects the ParameterDict of
torch 1.11 and older, and before torch 2.6 it could be made to run code (CVE-2025-32434). Python's C unpickler is not
used either: a single opcode can make it allocate gigabytes.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .stand_ins import MOST_NUMBERS, STAND_INS, STATEFUL, Array, Storage, Strided, Tuple

LARGEST_PICKLE = 2**20  # bytes; that of an embedding has a few hundred
MOST_PASSED = LARGEST_PICKLE  # values and letters that stand-ins are given; an honest pickle has each of them
MOST_VALUES = 10_000  # per file: nested references may expand to more than fits into memory
MOST_TENSORS = 1_000  # per file
LEGACY_PICKLES = 5  # magic number, protocol, system, object, storage keys


OMITTED = (  # opcodes that resolve names in other ways, or allocate an announced size
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.PERSID, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    *(pickle.FROZENSET, pickle.LONG4),  # what takes long to compare or to hash, again and again
)


class Unpickler(pickle._Unpickler):
    """Resolves the names in STAND_INS; raises UserError for any other."""

    dispatch = {  # noqa: RUF012  the base class has it so
        opcode: action for opcode, action in pickle._Unpickler.dispatch.items() if bytes([opcode]) not in OMITTED
    }
    passed = 0

    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise UserError(
                f"asks for '{module}.{name}', which no embedding needs: it is another kind of file, or malicious. "
                "None of its code was run."
            ) from None

    def persistent_load(self, saved_id: Any) -> Any:
        kind, dtype, key = saved_id[:3]
        if kind == "module":  # before torch 1.6: a class with its source code; the stand-in is used instead
            return dtype
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError("a storage of an unknown kind")
        if not isinstance(key, (str, int)):
            raise ValueError("a storage without a name")
        return Storage(dtype, str(key))

    def give(self, values: Any) -> None:
        """Counts what a stand-in is given: references may give it the same long text or list again and again."""
        parts = values.values() if isinstance(values, dict) else values if isinstance(values, (list, tuple)) else ()
        self.passed += sum(len(part) if hasattr(part, "__len__") else 1 for part in (values, *parts))
        if self.passed > MOST_PASSED:
            raise UserError("repeats its values too often: it is another kind of file, or malicious.")

    def build(self) -> None:
        """BUILD could set any attribute of any object; only what our stand-ins take from their state is needed."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        self.give(state)
        if isinstance(self.stack[-1], STATEFUL):  # type: ignore[attr-defined]
            self.stack[-1].set_state(state)  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = build  # type: ignore[assignment]


def _giving(call: Callable[[Any], None]) -> Callable[[Any], None]:
    def counted(unpickler: Any) -> None:
        unpickler.give(unpickler.stack[-1])
        call(unpickler)

    return counted


def _making(opcode: Callable[[Any], None]) -> Callable[[Any], None]:
    def made(unpickler: Any) -> None:
        opcode(unpickler)
        unpickler.stack[-1] = Tuple(unpickler.stack[-1])

    return made


for _opcode in (pickle.REDUCE[0], pickle.NEWOBJ[0]):
    Unpickler.dispatch[_opcode] = _giving(Unpickler.dispatch[_opcode])
for _opcode in (pickle.TUPLE[0], pickle.TUPLE1[0], pickle.TUPLE2[0], pickle.TUPLE3[0]):
    Unpickler.dispatch[_opcode] = _making(Unpickler.dispatch[_opcode])


def read_torch(data: bytes) -> Any:
    """The object in a file of torch.save, in its zip or legacy format: dicts, lists, tensors, strings and numbers.

    Raises UserError with a message that continues the file's name, or one of reading.DAMAGE.
    """
    if data.startswith(b"PK"):
        return _read_zip(data)
    stream = io.BytesIO(data[:LARGEST_PICKLE])
    *_, content, keys = (Unpickler(stream).load() for _ in range(LEGACY_PICKLES))
    storages, position = {}, stream.tell()
    itemsizes = {storage.key: storage.dtype.itemsize for storage in _storages(content)}
    for key in keys:
        (count,) = struct.unpack_from("<Q", data, position)
        end = position + 8 + count * itemsizes[key]
        storages[key] = bytearray(data[position + 8 : end])
        position = end
    return _filled(content, storages.__getitem__)


def _read_zip(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UserError("is a zip file that torch.save did not write. Unpack it first.")
        entries = archive.infolist()
        if any(info.compress_type for info in entries) or sum(info.file_size for info in entries) > len(data):
            raise UserError("is a compressed zip, which torch.save never writes.")
        if archive.getinfo(pickles[0]).file_size > LARGEST_PICKLE:
            raise UserError("is not an embedding: its pickle alone has more than 1 MiB.")
        content = Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        folder = pickles[0].removesuffix("data.pkl")
        return _filled(content, cache(lambda key: bytearray(archive.read(f"{folder}data/{key}"))))


def _storages(content: Any) -> list[Storage]:
    found: list[Storage] = []
    _walk(content, lambda values: found.append(values.storage) if isinstance(values, Strided) else None)
    return found


def _filled(content: Any, storage: Callable[[str], bytearray]) -> Any:
    sizes: list[int] = []

    def tensor(values: Strided | Array) -> Tensor | None:
        sizes.append(math.prod(values.shape))
        if len(sizes) > MOST_TENSORS or sum(sizes) > MOST_NUMBERS:
            raise UserError("holds more tensors than an embedding. Is it a model?")
        return values.tensor(storage)

    return _walk(content, tensor)


def _walk(content: Any, action: Callable[[Strided | Array], Any]) -> Any:
    """A copy of nested dicts and lists with `action` applied to every tensor and array."""
    count = 0

    def copy(value: Any) -> Any:
        nonlocal count
        count += 1
        if count > MOST_VALUES:
            raise UserError(f"holds more than {MOST_VALUES} values, so it is not an embedding.")
        if isinstance(value, (Strided, Array)):
            return action(value)
        if isinstance(value, dict):
            return {key: copy(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [copy(inner) for inner in value]
        return value

    return copy(content)


def torch_bytes(content: dict[str, Any]) -> bytes:
    """A file of torch.save of the entries that A1111's safe loader accepts (modules/safe.py, check_zip_filenames).

    Since torch 2.1 there are others (byteorder, .format_version ...), which A1111 rejects and torch does not need.
    """
    written, kept = io.BytesIO(), io.BytesIO()
    torch.save(content, written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(kept, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            _, _, entry = name.partition("/")
            if entry in ("data.pkl", "version") or entry.startswith("data/"):
                target.writestr(zipfile.ZipInfo(f"archive/{entry}"), source.read(name))
    return kept.getvalue()
