"""Tensors that autograd keeps for backward, in code of hosts that changes tensors in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


class Kept:
    """What autograd has in the place of a tensor. Its memory is nobody else's while this lives."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def copied_before_changes() -> Iterator[None]:
    """Copies a tensor that autograd keeps before it, or another view of its memory, is changed in place.

    Forward and backward pass belong inside. PyTorch's `allow_mutation_on_saved_tensors` does it too, but knows a tensor
    by Python's id and its address, also after it is gone: the next tensor there got its copy, and a wrong gradient.
    """
    kept: dict[int, WeakSet[Kept]] = {}  # by the address of their memory

    def keep(tensor: Tensor) -> Kept:
        one = Kept(tensor.detach())  # a result that its own operation keeps refers to it
        kept.setdefault(address(tensor), WeakSet()).add(one)
        return one

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for tensor in written(func, args, kwargs or {}):
                for one in kept.pop(address(tensor), ()):
                    one.tensor = one.tensor.clone()
            return func(*args, **kwargs or {})

    with saved_tensors_hooks(keep, lambda one: one.tensor), Watching():  # type: ignore[no-untyped-call]
        yield


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments of an operator that it writes to."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from given if isinstance(given, list | tuple) else [given] if given is not None else []
