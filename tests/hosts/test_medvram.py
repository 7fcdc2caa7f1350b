"""The WebUI's hooks of --medvram, with pretended modules of a WebUI; tests/webui has the real ones."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

NAME = "ti_train.hosts.webui.medvram"


@pytest.fixture
def medvram(monkeypatch):
    cpu = torch.device("cpu")
    modules, lowvram = ModuleType("modules"), ModuleType("lowvram")
    lowvram.cpu, lowvram.send_everything_to_cpu = cpu, lambda: None
    modules.lowvram, modules.devices = lowvram, SimpleNamespace(device=cpu, torch_gc=lambda: None)
    monkeypatch.setitem(sys.modules, "modules", modules)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME)


def no_memory(*_):
    raise MemoryError


@pytest.fixture
def model():
    """With the hooks by which the WebUI moves its parts."""

    def hook(_module, _inputs):
        pass

    hook.__module__ = "lowvram"
    made = SimpleNamespace(is_sdxl=False, model=nn.Linear(2, 2), cond_stage_model=nn.Linear(2, 2))
    for part in (made.model, made.cond_stage_model):
        part.register_forward_pre_hook(hook)
    return made


def hooks(model):
    return [len(part._forward_pre_hooks) for part in (model.model, model.cond_stage_model)]


def test_the_hooks_are_back_though_a_part_cannot_be_moved(medvram, model):
    parts = medvram.HeldParts(model)
    parts.hold()
    model.model.to = no_memory
    with pytest.raises(MemoryError):
        parts.release_weights()
    assert hooks(model) == [1, 1]


def test_what_could_not_be_held_is_held_by_the_next_step(medvram, model, monkeypatch):
    parts = medvram.HeldParts(model)
    monkeypatch.setattr(medvram.lowvram, "send_everything_to_cpu", no_memory)
    with pytest.raises(MemoryError):
        parts.hold()
    monkeypatch.setattr(medvram.lowvram, "send_everything_to_cpu", lambda: None)
    parts.hold()
    assert hooks(model) == [0, 0]
