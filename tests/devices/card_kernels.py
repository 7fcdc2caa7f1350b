"""The kernels of the pretended card: each runs the CPU's over the same memory.

Everything above them is PyTorch's own for CUDA: autograd with its device threads, autocast, inference mode, version
counters, views. The rules of a real card are kept: tensors of two devices in one operation and a generator of the CPU
are errors, and what the host has to wait for is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .card import CUDA, Card, on_cpu, take, to_card
from .uncomputed import fused_attention, goes_uncomputed, uncomputed

aten = torch.ops.aten
BACKEND_NEUTRAL = {  # PyTorch's own work on any device, or are replaced below
    "set_", "_to_copy", "lift", "is_same_size", "is_set_to", "resize_", "is_pinned", "record_stream",
}  # fmt: skip
COPIES = {"copy_", "_to_copy", "_foreach_copy_"}  # from any device to any
INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_"}  # the indices may be on the CPU
SCALARS = {"masked_fill_", "masked_fill", "fill_", "fill", "lerp_", "lerp", "where", "clamp"} | INDEXING
WAITING = {"_local_scalar_dense": "a number", "nonzero": "a size", "masked_select": "a size", "equal": "an answer"}
SUMS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"}  # a card adds up half precision in fp32
HALF = (torch.float16, torch.bfloat16)
EMPTY = ("empty", "new_empty")  # memory without content
EXPLICIT = ("CUDA", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")


def register() -> torch.library.Library:
    """Puts a kernel in the place of every one that a card would have. They last as long as the answer is kept."""
    library = torch.library.Library("aten", "IMPL")
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    for full_name in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full_name.partition("::")
        base, _, overload = name.partition(".")
        op = getattr(getattr(aten, base, None), overload or "default", None) if namespace == "aten" else None
        if op is None or base in BACKEND_NEUTRAL or not any(has_kernel(full_name, key) for key in EXPLICIT):
            continue
        if any(r.alias_info and not r.alias_info.is_write for r in op._schema.returns):
            continue  # a view: no memory is touched
        library.impl(name, _kernel(op), "CUDA")
    library.impl("resize_", _resize, "CUDA")
    library.impl("_to_copy", _to_copy, "CUDA")
    library.impl("_pin_memory", lambda self, *_: self.clone(), "CPU")  # a driver's; to the CPU it is memory like any
    library.impl("is_pinned", lambda *_: False, "CUDA")
    library.impl("record_stream", lambda *_: None, "CUDA")
    for key in ("CUDA", "AutogradCUDA"):
        library.impl("scaled_dot_product_attention", _attention, key)
        library.impl("rms_norm", _rms_norm, key)
    return library


def _kernel(op: Any) -> Callable[..., Any]:
    """The CPU's kernel of an operation, for the card."""
    schema = op._schema
    name = schema.name.partition("::")[2]
    takes_scalars = torch.Tag.pointwise in op.tags or name.startswith("_foreach") or name in SCALARS
    order = [argument.name for argument in schema.arguments]
    written = _written(schema)
    compute = _summed_in_fp32(op) if name in SUMS else op

    def run(*args: Any, **kwargs: Any) -> Any:
        take(0, name)
        given = _tensors((args, kwargs))
        there = [tensor for tensor in given if tensor.device.type == "cuda"]
        if name not in COPIES and there:
            bound = [t for t in (args[0], *args[2:3]) if torch.is_tensor(t)] if name in INDEXING else given
            _refuse_foreign(op, given, [t for t in bound if t.dim() or not takes_scalars])
        count(name, args)
        where = torch.device(kwargs.get("device") or CUDA)
        if kwargs.get("device") is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if "generator" in order[len(args) :]:
            kwargs = kwargs | {"generator": Card.generator}
        if not Card.computes and where.type == "cuda" and name not in WAITING and goes_uncomputed(name, given):
            return uncomputed(op, dict(zip(order, args, strict=False)) | kwargs, written)
        lowered = {id(tensor): on_cpu(tensor) for tensor in there}
        with torch._C._AutoDispatchBelowAutograd():
            low = _mapped(lambda x: lowered.get(id(x), x), (args, kwargs))
            answer = compute(*low[0], **low[1])
            for tensor in there:
                if lowered[id(tensor)].shape != tensor.shape:  # an `out` that was empty
                    _move_to(tensor, to_card(lowered[id(tensor)]))
            raised = _raising(name, there) if where.type == "cuda" else lambda x: x
            several = isinstance(answer, tuple) and len(written) > 1
            named = dict(zip(order, args, strict=False)) | kwargs
            parts = zip(written, answer if several else [answer], strict=False)
            answers = [named[argument] if argument else _mapped(raised, part) for argument, part in parts]
        return None if not written else tuple(answers) if several else answers[0]

    return run


def _summed_in_fp32(op: Any) -> Callable[..., Any]:
    """Half precision in, fp32 within, half precision out: four times faster than the CPU's own kernels for it."""

    def compute(*args: Any, **kwargs: Any) -> Any:
        dtype = args[0].dtype
        if dtype not in HALF or "out" in kwargs:
            return op(*args, **kwargs)
        wide = _mapped(Tensor.float, (args, kwargs))
        return _mapped(lambda x: x.to(dtype), op(*wide[0], **wide[1]))

    return compute


def _written(schema: Any) -> list[str | None]:
    """For each answer the name of the argument that it is, where the operation writes into one."""
    sets = {a.name: a.alias_info.before_set for a in schema.arguments if a.alias_info}
    marks = [r.alias_info.before_set if r.alias_info else set() for r in schema.returns]
    return [next((name for name, given in sets.items() if given & mark), None) for mark in marks]


def _mapped(change: Callable[[Tensor], Any], tree: Any) -> Any:
    """What an operation takes or answers with every tensor in it changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, list | tuple):
        return type(tree)([_mapped(change, part) for part in tree])
    return {key: _mapped(change, part) for key, part in tree.items()} if isinstance(tree, dict) else tree


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(found.append, tree)
    return found


def _refuse_foreign(op: Any, given: Sequence[Tensor], bound: Sequence[Tensor]) -> None:
    if any(tensor.device.type == "cpu" for tensor in bound):
        shapes = [(tuple(tensor.shape), str(tensor.device)) for tensor in given]
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu! {op} {shapes}")


def _raising(name: str, sources: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Takes a CPU answer to the card: a view of what was given stays one, anything else is new memory."""
    spans = [(p := t.untyped_storage().data_ptr(), p + t.untyped_storage().nbytes(), t) for t in sources]

    def raised(x: Tensor) -> Tensor:
        place = x.data_ptr() if x.numel() else 0
        start, source = next(((first, t) for first, end, t in spans if first <= place < end), (0, None))
        if source is None:
            return to_card(x, copied=not name.startswith(EMPTY))
        view: Tensor = aten.as_strided.default(source, x.size(), x.stride(), (place - start) // x.itemsize)
        return view

    return raised


def count(name: str, args: tuple[Any, ...] = ()) -> None:
    """Notes a kernel, and whether the host waits for it: not for non_blocking copies."""
    crossing = name == "copy_" and args[0].device != args[1].device and not any(args[2:3])
    waits = f"a copy to {args[0].device.type}" if crossing else WAITING.get(name)
    Card.seen.update([name, f"WAIT for {waits}"] if waits else [name])


def _attention(
    q: Any, k: Any, v: Any, mask: Any = None, dropout: float = 0.0, causal: bool = False, **more: Any
) -> Any:
    """Which kernel computes it is chosen in C++, by asking the card: here it is the plain one, or none."""
    if not Card.computes:
        return fused_attention(q, k, v, mask, dropout, causal, more.get("scale"))
    return aten._scaled_dot_product_attention_math(q, k, v, mask, dropout, causal, None, **more)[0]


def _rms_norm(x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """The fused kernel's backward is none of the CPU's."""
    if not Card.computes:
        return aten._fused_rms_norm(x, shape, weight, eps)[0]
    dims, wide = tuple(range(-len(shape), 0)), x.float()
    small = torch.finfo(x.dtype).eps if eps is None else eps
    normed = (wide * (wide.pow(2).mean(dims, keepdim=True) + small).rsqrt()).to(x.dtype)
    return normed if weight is None else normed * weight


def _to_copy(self: Tensor, *, non_blocking: bool = False, pin_memory: bool | None = None, **options: Any) -> Tensor:
    """PyTorch's own asks the driver for pinned memory where a copy to the CPU does not block."""
    empty = torch.empty_like(self, **{key: value for key, value in options.items() if value is not None})
    return empty.copy_(self, non_blocking)


def _resize(self: Tensor, size: Any, memory_format: Any = None) -> Tensor:
    new, old = torch.empty(size, dtype=self.dtype), on_cpu(self).flatten()
    new.view(-1)[: old.numel()] = old[: new.numel()]
    return _move_to(self, to_card(new))


def _move_to(target: Tensor, new: Tensor) -> Tensor:
    moved: Tensor = aten.set_.source_Storage_storage_offset(target, new.untyped_storage(), 0, new.size(), new.stride())
    return moved
