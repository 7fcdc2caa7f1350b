"""Graphs of a network's passes, on a pretended card, whose graphs overwrite what they have given before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from devices.runner import on_card


def calls(driver: str) -> dict[str, Any]:
    """How often a network is recorded in six steps of two shapes, and whether every step has the network's gradient."""
    import torch

    from ti_train.hosts.diffusers.graphs import GraphedPasses

    def network(x: Any, scale: Any) -> tuple[Any, Any]:
        return x.sin() * scale, x

    recorded = []

    def record(function: Any, examples: Any, **_: Any) -> Any:
        recorded.append(tuple(examples[0].shape))
        if driver == "without graphs":
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return function

    torch.cuda.make_graphed_callables = record
    passes, right = GraphedPasses(network), []
    for size in (2, 2, 3, 2, 2, 2):
        x = torch.full((size,), 0.5, device="cuda", requires_grad=True)
        passes.begin()
        passes(1000, x, scale=torch.tensor(3.0, device="cuda"))[0].sum().backward()
        right.append(torch.allclose(x.grad.cpu(), 3 * torch.full((size,), 0.5).cos()))
    return {"recorded": recorded, "right": all(right)}


@pytest.mark.parametrize("driver", ["with graphs", "without graphs"])
def test_a_frequent_shape_is_recorded_once_and_every_step_is_right(driver):
    assert on_card(calls, driver) == {"recorded": [[2]], "right": True}


def held() -> int:
    """How many networks are recorded if their activations would hold 1 GiB."""
    import torch

    from ti_train.hosts.diffusers.graphs import AT_SIGHT, GraphedPasses

    recorded = []
    torch.cuda.make_graphed_callables = lambda function, *_, **__: recorded.append(function) or function
    passes = GraphedPasses(lambda x: (x * 2,))
    for _ in range(AT_SIGHT):
        passes.begin()
        passes(2**30, torch.ones(2, device="cuda", requires_grad=True))[0].sum().backward()
    return len(recorded)


def test_a_graph_leaves_memory_to_others():
    assert [on_card(held, gib=gib) for gib in (3, 6)] == [0, 1]


def recorded_if_deterministic() -> int:
    """How many networks are recorded in deterministic mode."""
    import torch

    from ti_train.hosts.diffusers.graphs import AT_SIGHT, GraphedPasses
    from ti_train.training.determinism import deterministic

    recorded: list[Any] = []
    torch.cuda.make_graphed_callables = lambda function, *_, **__: recorded.append(function) or function
    passes, x = GraphedPasses(lambda x: (x * 2,)), torch.ones(2, device="cuda", requires_grad=True)
    for _ in range(2 * AT_SIGHT):
        passes.begin()
        with deterministic(True):
            passes(1000, x)[0].sum().backward()
    return len(recorded)


def test_a_deterministic_step_has_the_bits_of_its_first_ones():
    """A resumed run computes some steps before it could record, and an uninterrupted one from a graph."""
    assert on_card(recorded_if_deterministic) == 0


def replayed() -> int:
    """How many of three passes come from a graph, of which two precede the first's backward pass."""
    import torch

    from ti_train.hosts.diffusers.graphs import AT_SIGHT, GraphedPasses

    replays = []

    def record(function: Any, _examples: Any, **_: Any) -> Any:
        return lambda *given: replays.append(given) or function(*given)

    torch.cuda.make_graphed_callables = record
    passes, x = GraphedPasses(lambda x: (x * 2,)), torch.ones(2, device="cuda", requires_grad=True)
    for _ in range(AT_SIGHT):
        passes.begin()
        passes(1000, x)[0].sum().backward()
    passes.begin()
    replays.clear()
    (passes(1000, x)[0] + passes(1000, x)[0]).sum().backward()
    passes(1000, x)
    return len(replays)


def test_a_graph_is_not_replayed_before_the_backward_pass_that_needs_its_activations():
    assert on_card(replayed) == 2


SETTINGS: dict[str, dict[str, Any]] = {
    "in parts, with previews": {"batch_size": 1, "accumulation": 2, "preview_every": 2, "preview_steps": 1},
    "exclusion": {"batch_size": 2, "per_image_words": 0.5, "exclusion": 0.1},
    "context": {"batch_size": 2, "context": 0.1},
    "recomputed": {"batch_size": 1, "accumulation": 4, "gradient_checkpointing": True},
}


def learnt(model: str, folder: str, settings: list[str]) -> dict[str, dict[str, Any]]:
    """The vectors of runs of one host with graphs and of one without, and how many graphs it has recorded."""
    import torch
    from PIL import Image

    from ti_train.data.dataset import encode_pictures
    from ti_train.data.picture import Picture
    from ti_train.events import Done
    from ti_train.hosts.diffusers import graphs
    from ti_train.hosts.diffusers.host import DiffusersHost
    from ti_train.training.config import TrainConfig
    from ti_train.training.loop import train

    recorded, record = [], torch.cuda.make_graphed_callables
    torch.cuda.make_graphed_callables = lambda *a, **k: recorded.append(1) or record(*a, **k)
    pictures = [Picture.cropped(color, Image.new("RGB", (16, 16), color), (16, 16)) for color in ("red", "blue")]
    found: dict[str, dict[str, Any]] = {}
    for kind, graphs.AT_SIGHT in (("graphs", 2), ("plain", 1000)):
        host = DiffusersHost.load(Path(model), "cuda", "float32")
        dataset, found[kind] = encode_pictures(host, pictures), {"recorded": {}}
        for name in settings:
            config = TrainConfig(name="word", init="cat", steps=4, evaluate_every=4, **SETTINGS[name])
            (done,) = (e for e in train(host, dataset, config, Path(folder) / kind / name) if isinstance(e, Done))
            found[kind][name] = {encoder: v.tolist() for encoder, v in done.embedding.vectors.items()}
            found[kind]["recorded"][name] = len(recorded)
            recorded.clear()
    return found


OF_XL = ["in parts, with previews", "context", "recomputed"]


@pytest.mark.parametrize(
    ("family", "networks", "settings"),
    [("sd1", 2, [*SETTINGS]), pytest.param("sdxl", 3, OF_XL, marks=pytest.mark.slow)],
)
def test_a_run_from_graphs_learns_the_same_vectors(pipelines, tmp_path, family, networks, settings):
    """The U-Net's and those of the text encoders."""
    found = on_card(learnt, str(pipelines(family=family)), str(tmp_path), settings)
    recorded = found["graphs"].pop("recorded")
    assert sum(recorded.values()) >= networks * len({"one image", "two images"})
    assert recorded["recomputed"] == 0, "in no call of a step"
    assert not any(found["plain"].pop("recorded").values())
    assert found["graphs"] == found["plain"]
