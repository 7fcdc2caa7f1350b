"""The pretended card itself: what it computes is the CPU's, and its errors are a card's."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from devices.pretend_cuda import Card
from devices.runner import on_card

MIB = 2**20


def error_of(action: Callable[[], Any]) -> str:
    try:
        action()
    except (RuntimeError, TypeError) as error:
        return str(error)
    return ""


def trained(device: str) -> list[float]:
    """The answer of a small network after three steps of AdamW."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(128, 4)
    )
    data, optimizer = torch.randn(2, 3, 4, 4).to(device), torch.optim.AdamW(network.to(device).parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(data).pow(2).mean().backward()
        optimizer.step()
    return network(data).flatten().tolist()


def errors() -> dict[str, str]:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    return {
        "two devices": error_of(lambda: here + there),
        "numpy": error_of(there.numpy),
        "generator": error_of(lambda: there.normal_(generator=torch.Generator())),
        "memory": error_of(lambda: torch.empty(2 * MIB, device="cuda")),
    }


def memory() -> list[int]:
    """Bytes that are held by a tensor, by a view of it alone, by nothing; and the peak."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    tensor = torch.ones(1000, 100, device="cuda")
    held = [torch.cuda.memory_allocated()]
    view, tensor = tensor[:10], None
    held.append(torch.cuda.memory_allocated())
    del view, tensor
    held += [torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()]
    return [count - before for count in held]


def full_at_a_kernel() -> list[str]:
    """The errors of a sum, of a product where products find the memory full, and of a product after that."""
    tensor = torch.ones(3, device="cuda")
    Card.fail_at = lambda name: name == "mul"
    found = [error_of(lambda: tensor + 1), error_of(lambda: tensor * 2)]
    Card.fail_at = None
    return [*found, error_of(lambda: tensor * 2)]


def waits() -> dict[str, int]:
    tensor = torch.ones(3, device="cuda")
    Card.seen.clear()
    tensor.sum().item()
    tensor.to("cpu", non_blocking=True)
    tensor.cpu()
    return dict(Card.seen)


def look() -> dict[str, Any]:
    """All of it on one card: a process costs seconds."""
    return {
        "trained": [trained("cpu"), trained("cuda")], "errors": errors(), "memory": memory(),
        "full at a kernel": full_at_a_kernel(), "waits": waits(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    answer: dict[str, Any] = on_card(look, gib=4 * MIB / 2**30)
    return answer


def test_training_on_it_is_training_on_the_cpu(found):
    cpu, card = found["trained"]
    assert torch.allclose(torch.tensor(card), torch.tensor(cpu), atol=1e-6)


def test_its_errors_are_a_cards(found):
    errors = found["errors"]
    assert "Expected all tensors to be on the same device" in errors["two devices"]
    assert "can't convert cuda:0 device type tensor to numpy" in errors["numpy"]
    assert "Expected a 'cuda' device type for generator" in errors["generator"]
    assert "CUDA out of memory" in errors["memory"]


def test_memory_is_held_as_long_as_a_view_of_it(found):
    assert found["memory"] == [400_000, 400_000, 0, 400_000]


def test_the_memory_is_full_at_a_chosen_kernel(found):
    before, at, after = found["full at a kernel"]
    assert (before, after) == ("", "")
    assert "CUDA out of memory" in at


def test_what_the_host_waits_for_is_counted(found):
    seen = found["waits"]
    assert (seen["WAIT for a number"], seen["WAIT for a copy to cpu"]) == (1, 1)
    assert seen["copy_"] == 2


def step_of_attention() -> dict[str, int]:
    """MiB at most of a step over 4096 places of 512 channels in half precision: computed, and allocated alone."""

    def peak(computes: bool, side: int) -> float:
        Card.computes = computes
        q, k, v = (torch.zeros(1, 8, side, 64, dtype=torch.half, device="cuda", requires_grad=True) for _ in range(3))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
        return (torch.cuda.max_memory_allocated() - before) / MIB

    return {"uncomputed": peak(False, 4096), "twice as many places": peak(False, 8192)}


def step_of_convolutions(computes: bool) -> float:
    """MiB at most of a step of two convolutions over a picture of 128 x 128 pixels."""
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 64, 3, padding=1)).to("cuda")
    Card.computes = computes
    torch.cuda.reset_peak_memory_stats()
    network(torch.zeros(1, 3, 128, 128, device="cuda")).pow(2).mean().backward()
    return torch.cuda.max_memory_allocated() / MIB


def look_at_memory_alone() -> dict[str, Any]:
    return {"convolutions": [step_of_convolutions(True), step_of_convolutions(False)], "attention": step_of_attention()}


def test_what_is_allocated_without_arithmetic_is_what_computing_allocates():
    found = on_card(look_at_memory_alone)
    computed, uncomputed = found["convolutions"]
    assert uncomputed == pytest.approx(computed, rel=0.02)
    once, twice = found["attention"]["uncomputed"], found["attention"]["twice as many places"]
    assert once < 40, "six tensors of 4 MiB and the gradient's; the scores alone would have 256"
    assert twice == pytest.approx(2 * once, rel=0.02)


def left_in_a_hook() -> str:
    """Answers while the card's autograd thread is in a hook, which ends before the modules of the process do."""
    started = threading.Event()

    class Last:
        def __del__(self) -> None:
            time.sleep(1)

    def hook(_gradient: Any) -> None:
        started.set()
        time.sleep(0.5)

    product = torch.ones(2, device="cuda", requires_grad=True) * 2
    product.register_hook(hook)
    threading.Thread(target=product.sum().backward, daemon=True).start()
    started.wait()
    sys.last_of_the_process = Last()
    return "answered"


def test_an_answer_counts_whatever_autograds_thread_still_does():
    assert on_card(left_in_a_hook) == "answered"
