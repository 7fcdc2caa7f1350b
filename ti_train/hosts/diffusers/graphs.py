"""A network's passes in a training step as CUDA graphs: two launches instead of thousands.

A GPU that computes kernels faster than the CPU launches them waits for the CPU. A graph has the same kernels with the
same shapes and addresses, so it is recorded for one shape of the inputs, and holds the memory of its activations.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...device import free_memory

log = logging.getLogger("ti_train")
SHARE = 0.25  # of the free memory, at most, that a graph may hold: previews and other programs need some as well
AT_SIGHT = 3  # calls with a shape before it is recorded, which takes as long as some of them: rare shapes do not pay

Outputs = tuple[Tensor, ...]


class GraphedPasses:
    """Calls a function of a network whose weights stay where they are; within training steps from graphs, if these fit.

    The function takes tensors, also in dictionaries, and returns tensors, of which the first depends on those that
    need a gradient.
    """

    def __init__(self, function: Callable[..., Outputs]) -> None:
        self.function = function
        self._recorded: dict[Any, Callable[..., Outputs]] = {}
        self._seen: Counter[Any] = Counter()
        self._pool: Any = None
        self._graphs = True  # whether this step may use them
        self._waiting = False  # for the backward pass of a graph, whose activations the next forward pass overwrites

    def begin(self, graphs: bool = True) -> None:
        """At the start of a step. graphs: whether it may use any; if not, the memory of all is freed."""
        self._graphs, self._waiting = graphs, False
        if not graphs:
            self._recorded.clear()
            self._seen.clear()
            self._pool = None

    def __call__(self, activations: int, *args: Any, **kwargs: Any) -> Outputs:
        """activations: bytes that a graph would hold, as far as known. The next call may overwrite what is returned."""
        given, structure = tree_flatten((args, kwargs))
        differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in given)
        # on an H200 two deterministic runs from graphs had different bits; without graphs they are equal
        exact = torch.are_deterministic_algorithms_enabled()
        if not (self._graphs and differentiable and given[0].is_cuda) or self._waiting or exact:
            return self._plain(structure, *given)
        shape = (str(structure), *((x.shape, x.dtype, x.requires_grad) for x in given))
        self._seen[shape] += 1
        if shape not in self._recorded:
            if self._seen[shape] < AT_SIGHT or activations > SHARE * (free_memory(given[0].device) or 0):
                return self._plain(structure, *given)
            try:
                self._recorded[shape] = self._record(structure, given)
            except RuntimeError as error:  # a driver without graphs, or a memory that was fuller than estimated
                log.info("A step is not recorded as a CUDA graph (%s).", error)
                self._recorded[shape] = partial(self._plain, structure)
        outputs = self._recorded[shape](*given)
        self._waiting = True
        outputs[0].register_hook(self._arrived)
        return outputs

    def _plain(self, structure: Any, *given: Tensor) -> Outputs:
        args, kwargs = tree_unflatten(list(given), structure)
        return self.function(*args, **kwargs)

    def _record(self, structure: Any, given: list[Tensor]) -> Callable[..., Outputs]:
        self._pool = self._pool or torch.cuda.graph_pool_handle()  # shared: no two graphs are used at once
        examples = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in given)
        with warnings.catch_warnings():  # of the examples, which are leaves on PyTorch's own stream: harmless
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            recorded = torch.cuda.make_graphed_callables(
                lambda *tensors: self._plain(structure, *tensors), examples, pool=self._pool
            )
        return cast(Callable[..., Outputs], recorded)

    def _arrived(self, _gradient: Tensor) -> None:
        self._waiting = False
