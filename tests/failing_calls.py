"""A host of which one call fails: whichever it is, everything has to be as it was before, and the next run the same."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

ERRORS: dict[str, Callable[[], Exception]] = {
    "host": lambda: RuntimeError("of the host"),
    "memory": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory"),
}
EVERY = int(os.environ.get("TI_TRAIN_EVERY_CALL", "0"))  # 10: every tenth call fails in turn, too
IN_EACH_LAYER = "model_management.throw_exception_if_processing_interrupted"  # ComfyUI's look at a flag
Place = tuple[Any, str]  # a class or module, and the name of a function in it
Kind = tuple[str, bool, bool]  # the function, and whether gradients and inference mode are on


class FailingCalls:
    """Notes the kinds of calls of some functions, and raises an error at one of them, until `close`."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.kinds: list[Kind] = []
        self._fails, self._error = 0, ERRORS["host"]
        self._patched = ExitStack()
        for owner, name in dict.fromkeys(places):
            self._patched.enter_context(patch.object(owner, name, self._noted(owner, name)))

    def close(self) -> None:
        self._patched.close()

    def restart(self, fails: int = 0, error: str = "host") -> None:
        """Counts anew. fails: the number of the call that raises this error, counted from 1; 0: none."""
        self.kinds, self._fails, self._error = [], fails, ERRORS[error]

    def _noted(self, owner: Any, name: str) -> Callable[..., Any]:
        function, named = getattr(owner, name), f"{owner.__name__.rpartition('.')[2]}.{name}"
        assert not isinstance(inspect.getattr_static(owner, name), classmethod | staticmethod), named

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.kinds.append((named, torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            if len(self.kinds) == self._fails:
                raise self._error()
            return function(*args, **kwargs)

        return call


def to_fail(kinds: Sequence[Sequence[Any]]) -> list[int]:
    """The numbers of the first calls of each kind, and of every so many-th of the others that do something."""
    others = [number for number, (name, *_) in enumerate(kinds, 1) if name != IN_EACH_LAYER]
    return sorted({*first_of_each(kinds), *(others[::EVERY] if EVERY else ())})


def first_of_each(kinds: Iterable[Iterable[object]]) -> list[int]:
    """The numbers of the first calls of each kind, counted from 1."""
    numbers: dict[tuple[object, ...], int] = {}
    for number, kind in enumerate(kinds, 1):
        numbers.setdefault(tuple(kind), number)
    return list(numbers.values())
