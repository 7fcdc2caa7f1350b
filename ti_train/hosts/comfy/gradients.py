"""Gradients through ComfyUI's text encoders and denoisers, which are written for inference."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as management
import torch
from torch.overrides import TorchFunctionMode

try:
    import comfy_kitchen.backends.eager as eager
except ImportError:  # ComfyUI 0.3.64 has no kernels of its own
    eager = None
KERNELS = "comfy_kitchen."


@contextmanager
def differentiable() -> Iterator[None]:
    """What ComfyUI's code needs so that gradients pass through it. Entered with gradients enabled."""
    with _marked_as_training(), ForAutograd():
        yield


class ForAutograd(TorchFunctionMode):
    """Replaces calls that autograd cannot record by equal ones that it can.

    Language models and sliced attention write a result over an input by `out=`, and some denoisers call kernels that
    have no backward pass even where ComfyUI's training flag is set. Left during `backward()`, which is such a call
    itself.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if kwargs.get("out") is None:
            return _with_backward(func)(*args, **kwargs)
        out = kwargs["out"]
        answer = func(*args, **{name: value for name, value in kwargs.items() if name != "out"})
        return out.copy_(answer)  # the caller may use either


@functools.cache
def _with_backward(func: Callable[..., Any]) -> Callable[..., Any]:
    """The PyTorch code of a kernel of ComfyUI for rotary embeddings; any other function itself."""
    name = str(func)
    if eager is None or not name.startswith(KERNELS):
        return func
    name = name.removeprefix(KERNELS).split(".")[0]
    return getattr(eager, name, func) if name.startswith("rms_rope") else func


@contextmanager
def _marked_as_training() -> Iterator[None]:
    """Sets ComfyUI's training flag (0.33 and later), with which some models avoid fused kernels."""
    before = getattr(management, "in_training", None)
    if before is None:
        yield
        return
    management.in_training = True
    try:
        yield
    finally:
        management.in_training = before
