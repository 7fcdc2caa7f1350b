"""Graphs of a network's passes, on a pretended card, whose graphs are the functions themselves."""

from __future__ import annotations

from typing import Any

import pytest
from devices.runner import on_card


def calls(driver: str) -> dict[str, Any]:
    """How often a network is recorded in six steps of two shapes, and whether every step has the network's gradient."""
    import torch

    from ti_train.hosts.diffusers.graphs import GraphedNetwork

    class Network(torch.nn.Module):
        def forward(self, x: Any, scale: Any, return_dict: bool) -> tuple[Any]:
            return (x.sin() * scale,)

    recorded = []

    def record(function: Any, examples: Any, **_: Any) -> Any:
        recorded.append(tuple(examples[0].shape))
        if driver == "without graphs":
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return function

    torch.cuda.make_graphed_callables = record
    network, right = GraphedNetwork(Network()), []
    for size in (2, 2, 3, 2, 2, 2):
        x = torch.full((size,), 0.5, device="cuda", requires_grad=True)
        network.begin()
        network(1000, x, scale=torch.tensor(3.0, device="cuda")).sum().backward()
        right.append(torch.allclose(x.grad.cpu(), 3 * torch.full((size,), 0.5).cos()))
    return {"recorded": recorded, "right": all(right)}


@pytest.mark.parametrize("driver", ["with graphs", "without graphs"])
def test_a_frequent_shape_is_recorded_once_and_every_step_is_right(driver):
    assert on_card(calls, driver) == {"recorded": [[2]], "right": True}


def held() -> int:
    """How many networks are recorded if their activations would hold 1 GiB."""
    import torch

    from ti_train.hosts.diffusers.graphs import AT_SIGHT, GraphedNetwork

    recorded = []
    torch.cuda.make_graphed_callables = lambda function, *_, **__: recorded.append(function) or function
    network = GraphedNetwork(torch.nn.Identity())
    network._plain = lambda _structure, x: x * 2
    for _ in range(AT_SIGHT):
        network.begin()
        network(2**30, torch.ones(2, device="cuda", requires_grad=True)).sum().backward()
    return len(recorded)


def test_a_graph_leaves_memory_to_others():
    assert [on_card(held, gib=gib) for gib in (3, 6)] == [0, 1]
