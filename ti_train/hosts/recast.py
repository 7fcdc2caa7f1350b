"""Layers whose weights are cast, dequantised or fetched at each call: gradients without keeping what was made of them.

Autograd would keep what each layer made of its weight until backward: a copy of the whole model in the precision of
computation. Of weights that ComfyUI fetches it would keep a buffer that later layers overwrite, and the gradient would
be wrong without an error. So such a layer keeps nothing of its weight, and makes it again in backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode, _pop_mode_temporarily

from .checkpointing import recomputed
from .weights import over

Forward = Callable[..., Any]


@contextmanager
def recast(*modules: nn.Module, context: Callable[[], AbstractContextManager[object]] = nullcontext) -> Iterator[None]:
    """Makes the layers differentiable within the context. Enter it before gradient checkpointing.

    context: that in which layers are computed again in backward.
    """
    with ExitStack() as stack:
        for layer in (part for module in modules for part in module.modules()):
            if may_make_its_weight(layer):
                stack.callback(_put_back, layer, vars(layer).get("forward"))
                layer.forward = functools.partial(_forward, layer, layer.forward, "forward" in vars(layer), context)
        yield


def _put_back(layer: nn.Module, forward: Forward | None) -> None:
    if forward is None:
        del layer.forward
    else:  # the host's own, of a LoRA that computes beside the layer
        layer.forward = forward


def _forward(
    layer: nn.Module, forward: Forward, replaced: bool, context: Callable[[], AbstractContextManager[object]],
    *args: Any, **kwargs: Any,
) -> Any:  # fmt: skip
    x = args[0] if args else None
    if _is_made(layer):
        forward = functools.partial(_without_mode, forward)
    if not (isinstance(x, Tensor) and torch.is_grad_enabled() and x.requires_grad and makes_its_weight(layer, x)):
        return forward(*args, **kwargs)
    if type(layer).__name__ == "Linear" and not replaced and len(args) == 1 and not kwargs:
        return Linear.apply(x, forward)
    return recomputed(forward, context, *args, **kwargs)


def _without_mode(forward: Forward, *args: Any, **kwargs: Any) -> Any:
    """Outside of the mode that watches for changed tensors: in it `torch.Tensor(weight)`, by which ComfyUI-GGUF makes a
    plain tensor of its own class, is of that class again. No such layer changes a tensor that is saved.
    """
    with _pop_mode_temporarily() if _get_current_dispatch_mode() else nullcontext():
        return forward(*args, **kwargs)


def may_make_its_weight(layer: Any) -> bool:
    """Whether a layer is one of those that the host casts, patches or dequantises at each call."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or next(layer.children(), None) is not None:
        return False
    return getattr(layer, "comfy_cast_weights", False) or _is_made(layer)


def makes_its_weight(layer: Any, x: Tensor) -> bool:
    """Whether a layer computes on x with something else than its weight as it is stored."""
    return _is_made(layer) or (layer.weight.dtype, layer.weight.device) != (x.dtype, x.device)


def _is_made(layer: Any) -> bool:
    """A quantised weight is no plain tensor; a patch that was not applied when weights were loaded is a function."""
    functions = getattr(layer, "weight_function", ()), getattr(layer, "bias_function", ())
    return type(layer.weight.data) is not Tensor or any(functions)


class Linear(torch.autograd.Function):
    """A linear layer with a frozen weight: backward needs nothing of the forward pass but the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Forward) -> Any:
        ctx.layer, ctx.like = forward, x.new_ones(1, x.shape[-1])
        # as in sampling, with the host's kernels; an answer that is a view could not be added to in place
        return over(forward(x.detach()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        with torch.no_grad(), TimesWeight(gradients[0]) as times:
            ctx.layer(ctx.like)
        return times.product.to(ctx.like.dtype), None


class TimesWeight(TorchFunctionMode):
    """Multiplies a gradient by the weight with which a layer calls `linear`, and answers the layer with zeros.

    Within that call: behind it the host may put another layer's weight into the same memory.
    """

    product: Tensor

    def __init__(self, gradient: Tensor) -> None:
        super().__init__()
        self.gradient = gradient

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._scaled_mm:  # ComfyUI 0.3's fast mode for fp8, of a weight transposed
            x, weight = args[0], args[1].t().to(self.gradient.dtype) * (kwargs or {})["scale_b"]
        elif func is nn.functional.linear:
            x, weight, *_ = args
        else:
            return func(*args, **(kwargs or {}))
        plain = weight.dequantize() if hasattr(weight, "_qdata") else weight.as_subclass(Tensor)
        self.product = self.gradient.to(plain.dtype) @ plain
        return torch.zeros(*x.shape[:-1], len(plain), dtype=plain.dtype, device=x.device)
