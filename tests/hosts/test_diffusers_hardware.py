"""The device and the dtype that are picked, by what each card can do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from devices.runner import on_card

from ti_train.errors import UserError
from ti_train.host import SampleRequest, Slot
from ti_train.hosts.diffusers.hardware import pick_device, pick_dtype
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.diffusers.packed_convolutions import can_pack


@pytest.mark.parametrize("name", ["abacus", "", "cuda:0x", "cpu:1", "cpu:x"])
def test_a_device_that_is_not_there_is_answered_with_those_that_are(name):
    with pytest.raises(UserError, match=f"The device '{name}' is not available. .* have: .*cpu"):
        pick_device(name)


def test_what_is_asked_for_is_picked():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cuda", "xpu", "mps", "cpu")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert pick_dtype(str(dtype).removeprefix("torch."), torch.device("cpu")) == dtype
    assert pick_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("card", "capability", "dtype"),
    [
        ("NVIDIA GeForce RTX 5090", (12, 0), torch.bfloat16),
        ("NVIDIA GeForce RTX 3060", (8, 6), torch.bfloat16),
        ("NVIDIA GeForce RTX 2060", (7, 5), torch.float16),
        ("Tesla T4", (7, 5), torch.float16),
        ("Quadro RTX 4000", (7, 5), torch.float16),
        ("Tesla V100-SXM2-16GB", (7, 0), torch.float16),
        ("NVIDIA GeForce GTX 1660 SUPER", (7, 5), torch.float32),
        ("NVIDIA GeForce GTX 1650", (7, 5), torch.float32),
        ("NVIDIA T1000 8GB", (7, 5), torch.float32),
        ("NVIDIA GeForce GTX 1080 Ti", (6, 1), torch.float32),
        ("NVIDIA GeForce GTX 980", (5, 2), torch.float32),
    ],
)
def test_a_card_of_nvidia_computes_in_what_it_can(monkeypatch, card, capability, dtype):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: card)
    assert pick_dtype("auto", torch.device("cuda")) == dtype


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        ("gfx1030", torch.float16),  # RX 6800, whose capability is (10, 3)
        ("gfx1010:xnack-", torch.float16),  # RX 5700
        ("gfx906:sramecc+:xnack-", torch.float16),  # Radeon VII
        ("gfx1100", torch.bfloat16),  # RX 7900
        ("gfx1201", torch.bfloat16),  # RX 9070
        ("gfx90a:sramecc+:xnack-", torch.bfloat16),  # MI250
        ("gfx942:sramecc+:xnack-", torch.bfloat16),  # MI300
    ],
)
def test_a_card_of_amd_computes_in_what_its_architecture_has(monkeypatch, architecture, dtype):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (10, 3))
    properties = SimpleNamespace(gcnArchName=architecture)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
    assert pick_dtype("auto", torch.device("cuda")) == dtype


@pytest.mark.parametrize(("autocast", "dtype"), [(True, torch.float16), (False, torch.float32)])
def test_apples_gpus_compute_in_fp16_where_pytorch_has_autocast_for_them(monkeypatch, autocast, dtype):
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: autocast and kind == "mps", raising=False)
    assert pick_dtype("auto", torch.device("mps")) == dtype
    if not autocast:
        with pytest.raises(UserError, match="Use --dtype float32"):
            pick_dtype("float16", torch.device("mps"))


def test_intels_gpus_compute_in_bf16():
    assert pick_dtype("auto", torch.device("xpu")) == torch.bfloat16


def with_vectors_of_a_file(model: str) -> list[str]:
    """Where a prompt with them is encoded and sampled."""
    host = DiffusersHost.load(Path(model), "cuda", "float32")
    (encoder,) = host.widths
    words, prompt = {"cat": {encoder: torch.zeros(1, host.widths[encoder])}}, ("a ", Slot("cat"))
    encoded = host.encode([prompt], words)["encoder_hidden_states"]
    states = host.conditioning([prompt], words)[encoder][0].states
    assert len(host.sample(SampleRequest((prompt,), (0,), 16, 16, steps=1), words)) == 1
    return [tensor.device.type for tensor in (encoded, states)]


def test_the_vectors_of_a_file_are_taken_to_the_device(pipeline_folder):
    assert on_card(with_vectors_of_a_file, str(pipeline_folder)) == ["cuda", "cuda"]


def test_only_dtypes_with_kernels_of_their_own_are_packed(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    cpu = torch.device("cpu")
    packed = [dtype for dtype in (torch.float32, torch.bfloat16, torch.float16) if can_pack(cpu, dtype)]
    assert packed == ([torch.float32] if torch.backends.mkldnn.is_available() else [])
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert can_pack(cpu, torch.bfloat16)
