"""Results of norms and activation functions that backward makes again instead of keeping.

In a residual block autograd keeps the input of a norm, its output for SiLU, and often SiLU's for a convolution; in a
feed-forward the gate, and GELU of it. The first is enough: the others are dropped, as Chen et al. 2016 ("Training Deep
Nets with Sublinear Memory Cost") drop the results of cheap operations. The same kernels make the same bits again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn, no_grad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

LEAST = 2**18  # bytes of a result; smaller ones are not worth the time
NORM = "norm"  # of a node's metadata


class Kept(NamedTuple):
    tensor: Tensor
    version: int  # PyTorch does not notice that a tensor was changed in place if it is kept through hooks


class Dropped(NamedTuple):
    node: Any  # of autograd, that made it; it keeps what it was made of
    again: Callable[[Any], Tensor]


def again_by_norm(node: Any) -> Tensor:
    """Autograd keeps no bias of a group norm, and hosts may cast the weight, so the layer itself makes it."""
    made: Tensor = node.metadata[NORM].forward(node._saved_input)
    return made


ACTIVATIONS: dict[str, Callable[[Any], Tensor]] = {  # by the names of autograd's nodes
    "SiluBackward0": lambda node: F.silu(node._saved_self),
    "GeluBackward0": lambda node: F.gelu(node._saved_self, approximate=node._saved_approximate),
}
NORMS = ("NativeGroupNormBackward0", "NativeLayerNormBackward0")


@contextmanager
def results_dropped(*modules: nn.Module) -> Iterator[None]:
    """Within the context autograd keeps no result that can be made again, of the norms of these modules too."""
    with ExitStack() as stack:
        for handle in note_norms(*modules):
            stack.callback(handle.remove)
        stack.enter_context(saved_tensors_hooks(keep, kept))
        yield


def note_norms(*modules: nn.Module) -> list[RemovableHandle]:
    """Has each norm note itself at the node of what it makes, unless it is autocast that chose the dtype."""
    layers = (layer for module in modules for layer in module.modules())
    return [layer.register_forward_hook(note) for layer in layers if isinstance(layer, nn.GroupNorm | nn.LayerNorm)]


def note(norm: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
    node: Any = result.grad_fn
    if node is not None and node.name() in NORMS and result.dtype == inputs[0].dtype:
        node.metadata[NORM] = norm


def keep(tensor: Tensor) -> Kept | Dropped:
    """What autograd has in the place of a tensor; detached, as a result that its own operation keeps refers to it."""
    node: Any = tensor.grad_fn
    if node is not None and tensor.nbytes >= LEAST:
        if again := ACTIVATIONS.get(node.name()):
            return Dropped(node, again)
        if node.name() in NORMS and NORM in node.metadata:
            return Dropped(node, again_by_norm)
    return Kept(tensor.detach(), tensor._version)


def kept(one: Kept | Dropped) -> Tensor:
    if isinstance(one, Dropped):
        with no_grad():
            return one.again(one.node)
    if one.tensor._version != one.version:
        shape = list(one.tensor.shape)
        raise RuntimeError(f"A tensor {shape} that the gradient needs has been modified by an inplace operation.")
    return one.tensor
