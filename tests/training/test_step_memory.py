"""What a step is expected to need, and the remark where Windows would hide that it is not free."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from devices.runner import on_card

from ti_train.data.dataset import Dataset, Encoded
from ti_train.errors import UserError
from ti_train.events import Warning
from ti_train.host import Size
from ti_train.hosts.adapter import BYTES_PER_LATENT
from ti_train.training import loop, steps
from ti_train.training.config import TrainConfig
from ti_train.training.step_memory import GIB, doubtful, shortage, step_memory, within

SD1, XL = {"clip_l": 768}, {"clip_l": 768, "clip_g": 1280}


def pictures(*sides: int) -> Dataset:
    def encoded(side: int) -> Encoded:
        places = torch.zeros(4, side // 8, side // 8)
        return Encoded("", 0, places, None, places[:1], Size((side, side), (0, 0), (side, side)), "", 1)

    return Dataset(tuple(map(encoded, sides)), "")


def config(**given: Any) -> TrainConfig:
    return TrainConfig(**{"name": "toy", "init": "toy", "dtype": "float16"} | given)


def host_of(widths: dict[str, int]) -> Any:
    measured = BYTES_PER_LATENT.get(sum(widths.values()))
    return SimpleNamespace(
        widths=widths, bytes_per_latent=measured, memory_measured=True, device=torch.device("cuda", 0)
    )


def expected(widths: dict[str, int], side: int, **given: Any) -> float:
    return step_memory(host_of(widths), pictures(side, 64), config(**given)) / GIB


# Measured with benchmarks/memory.py: GiB besides the weights, of the command line's host and of ComfyUI's
@pytest.mark.parametrize(
    ("widths", "side", "given", "measured"),
    [
        (SD1, 512, {"batch_size": 4, "gradient_checkpointing": True}, (0.73, 1.28)),
        (SD1, 512, {"batch_size": 4}, (1.99, 2.17)),
        (XL, 1024, {"batch_size": 4, "gradient_checkpointing": True}, (2.64,)),
        (XL, 1024, {"batch_size": 1}, (3.80, 3.89)),
    ],
)
def test_the_estimate_is_at_least_what_was_measured_and_not_half_as_much_again(widths, side, given, measured):
    estimate = expected(widths, side, **given)
    assert max(measured) <= estimate <= 1.5 * max(measured)


def test_the_largest_picture_counts():
    assert expected(SD1, 512) < expected(SD1, 768)


def test_a_family_that_was_not_measured_is_not_guessed_at():
    unknown = host_of({"t5": 4096})
    assert step_memory(unknown, pictures(512), config()) == 0
    assert within(GIB, unknown, pictures(512), config(batch_size=4)) == config(batch_size=4)


def test_a_step_that_cannot_fit_is_made_smaller_before_the_run():
    large = within(12 * GIB, host_of(XL), pictures(1024), config(batch_size=4))
    assert (large.batch_size, large.accumulation, large.gradient_checkpointing) == (2, 2, True)
    assert within(24 * GIB, host_of(XL), pictures(1024), config(batch_size=4)) == config(batch_size=4)
    assert within(None, host_of(XL), pictures(1024), config(batch_size=4)) == config(batch_size=4)


def test_what_no_setting_makes_fit_is_refused_with_its_size_and_what_would():
    with pytest.raises(
        UserError, match=r"2.8 GiB of GPU memory.* has 2.0 GiB. Use a resolution of at most 1536 pixels"
    ):
        within(2 * GIB, host_of(XL), pictures(2048), config(batch_size=4))


def test_an_estimate_that_was_not_measured_refuses_nothing_and_is_reported():
    host = host_of(XL)
    host.memory_measured = False
    smallest = within(2 * GIB, host, pictures(2048), config(batch_size=4))
    assert (smallest.batch_size, smallest.accumulation, smallest.gradient_checkpointing) == (1, 4, True)
    (remark,) = doubtful(2 * GIB, host, pictures(2048), smallest)
    assert "2.8 GiB" in remark
    assert "only an estimate" in remark
    assert doubtful(24 * GIB, host, pictures(2048), smallest) == doubtful(None, host, pictures(2048), smallest) == []


def remarks(system: str, **given: Any) -> list[str]:
    """Of a step of Stable Diffusion 1 at 512 pixels, on the card of the test."""
    return shortage(host_of(SD1), pictures(512), config(**given), system)


def look() -> dict[str, list[str]]:
    """A card of 4 GiB, 2.5 of which the model has, and in the end another program 1.3 more."""
    model = torch.empty(5 * GIB // 2, dtype=torch.uint8, device="cuda")
    found = {
        "windows": remarks("win32", batch_size=4),
        "elsewhere": remarks("linux", batch_size=4),
        "fits": remarks("win32", batch_size=4, gradient_checkpointing=True),
    }
    other = torch.empty(13 * GIB // 10, dtype=torch.uint8, device="cuda")
    found["nothing fits"] = remarks("win32", batch_size=1, gradient_checkpointing=True)
    del model, other
    return found


def test_windows_is_told_before_the_first_step_and_what_would_fit():
    found = on_card(look, gib=4)
    (remark,) = found["windows"]
    assert "needs about 2.0 GiB" in remark, "with its feed-forwards computed again"
    assert "1.5 GiB are free" in remark
    assert "Batch size 4 with gradient checkpointing would fit" in remark
    assert (found["elsewhere"], found["fits"]) == ([], [])
    assert "Close other programs" in found["nothing fits"][0]


def test_a_run_says_so_before_its_first_step_and_has_the_host_make_room(host, dataset, settings, tmp_path, monkeypatch):
    room, training = [], host.training
    host.training = lambda *given: room.append(given) or training(*given)
    for module in (loop, steps):
        monkeypatch.setattr(module, "step_memory", lambda *_: 123)
    monkeypatch.setattr(loop, "shortage", lambda *_: ["short"])
    events = list(loop.train(host, dataset, settings(steps=1), tmp_path))
    assert events[0] == Warning("short")
    assert room == [(False, 123)] * 2
