"""Runs of the loop from their first event to the last one, and what they leave."""

from __future__ import annotations

import hashlib
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch

from ti_train.events import Step
from ti_train.formats import load_embedding
from ti_train.training.loop import train


def on_disk(folder: Path) -> torch.Tensor:
    return load_embedding(folder / "my-toy.safetensors").vectors["emb_params"]


def learnt(host, dataset, config, folder: Path, resume: bool = False) -> torch.Tensor:
    """Runs to the end, or to whatever ends it."""
    for _ in train(host, dataset, config, folder, resume):
        pass
    return on_disk(folder)


def of(kind, events) -> list:
    return [event for event in events if isinstance(event, kind)]


def weights_of(host) -> str:
    digest = hashlib.sha256()
    for tensor in chain.from_iterable(module.state_dict().values() for module in host.modules):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def flags_of(host) -> list:
    parameters = chain.from_iterable(module.parameters() for module in host.modules)
    modes = [part.training for module in host.modules for part in module.modules()]
    return [(p.requires_grad, p.grad is None) for p in parameters] + modes


def stopped_after(step: int, host, dataset, config, folder: Path, resume: bool = False) -> None:
    """The host's own way to interrupt: it stops asking for events."""
    with closing(train(host, dataset, config, folder, resume)) as events:
        for event in events:
            if isinstance(event, Step) and event.step == step:
                return
