"""Weights that are made in one mode and moved to a card in another: they train, and sample afterwards.

Those that are made in inference mode and moved outside of it count no versions: without `frozen` nobody can use them.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from devices.runner import on_card
from ti_train.hosts.weights import frozen

MODES = {"inside": True, "outside": False}


def moved(made: str, last_moved: str) -> nn.Module:
    with torch.inference_mode(MODES[made]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.LayerNorm(4), nn.Linear(4, 4))
    with torch.inference_mode(MODES[last_moved]):
        return network.to("cuda")


def gradient(network: nn.Module) -> list[float]:
    vector = torch.arange(4.0, device="cuda", requires_grad=True)
    with frozen(network):
        network(vector).square().sum().backward()
    return vector.grad.tolist()


def picture(network: nn.Module) -> list[float]:
    with torch.inference_mode():
        return network(torch.arange(4.0, device="cuda")).tolist()


def tried(made: str, last_moved: str) -> dict[str, object]:
    network = moved(made, last_moved)
    weights = list(network.parameters())
    found = {"gradient": gradient(network), "picture": picture(network)}
    with torch.inference_mode():
        network.to("cpu")
        network.to("cuda")
    again = {"gradient": gradient(network), "picture": picture(network)}
    kept = all(one is other for one, other in zip(weights, network.parameters(), strict=True))
    return {**found, "again": again == found, "kept": kept}


def table() -> dict[str, dict[str, object]]:
    found = {}
    for made, last_moved in product(MODES, MODES):
        try:
            found[f"{made} {last_moved}"] = tried(made, last_moved)
        except RuntimeError as error:
            found[f"{made} {last_moved}"] = {"error": str(error)}
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, object]]:
    return on_card(table)


@pytest.mark.parametrize("last_moved", MODES, ids="moved {}".format)
@pytest.mark.parametrize("made", MODES, ids="made {}".format)
def test_weights_train_and_sample_wherever_they_were_made_and_moved(found, made, last_moved):
    assert found[f"{made} {last_moved}"] == {**found["outside outside"], "again": True, "kept": True}
