"""A memory that is full: the training goes on with less, and says so."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_host import at_forward, raising

from ti_train.errors import UserError
from ti_train.events import Done, Preview, Step, Warning
from ti_train.formats import load_embedding
from ti_train.training import out_of_memory
from ti_train.training.out_of_memory import train_in_memory
from ti_train.training.step_memory import images_memory, with_less_memory

FULL = raising(torch.cuda.OutOfMemoryError("full"))


def learnt(folder: Path) -> torch.Tensor:
    return load_embedding(folder / "my-toy.safetensors").vectors["emb_params"]


@pytest.mark.parametrize("resume", [False, True])
def test_it_goes_on_from_the_last_step_in_smaller_passes(host, dataset, settings, tmp_path, resume):
    config, released = settings(steps=4, batch_size=4), []
    list(train_in_memory(host, dataset, config, tmp_path / "calm"))
    if resume:
        events = train_in_memory(host, dataset, config, tmp_path / "full")
        next(event for event in events if isinstance(event, Step) and event.step == 1)
        events.close()
    with at_forward(host.denoiser, [2], FULL):
        release = partial(released.append, True)
        events = list(train_in_memory(host, dataset, config, tmp_path / "full", resume, release=release))
    assert [event.step for event in events if isinstance(event, Step)] == ([2, 3, 4] if resume else [0, 1, 2, 3, 4])
    assert isinstance(events[-1], Done)
    (warning,) = [event for event in events if isinstance(event, Warning)]
    assert "batch size 2 and gradient accumulation 2" in warning.message
    assert released == [True]
    assert torch.allclose(learnt(tmp_path / "full"), learnt(tmp_path / "calm"), atol=1e-5)


def test_a_step_that_cannot_fit_begins_in_smaller_passes(host, dataset, settings, tmp_path, monkeypatch):
    config = settings(steps=1, batch_size=4)
    host.bytes_per_latent = (10, 100)
    room = images_memory(host, dataset, with_less_memory(config))
    monkeypatch.setattr(out_of_memory, "total_memory", lambda _: room)
    first, *events = train_in_memory(host, dataset, config, tmp_path)
    assert "does not fit into the GPU's memory. Training with gradient checkpointing, batch size 2" in first.message
    assert isinstance(events[-1], Done)


def test_before_the_first_event_there_is_nothing_to_go_on_from(host, dataset, settings, tmp_path):
    (tmp_path / "my-toy.resume").write_bytes(b"of an older run")
    encode, calls = host.encode, []

    def full_once(*arguments):
        calls.append(True)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("full")
        return encode(*arguments)

    host.encode = full_once
    *_, last = train_in_memory(host, dataset, settings(steps=2), tmp_path)
    assert isinstance(last, Done)


def test_a_memory_that_stays_full_is_told_and_the_last_step_kept(host, dataset, settings, tmp_path):
    with at_forward(host.denoiser, range(2, 99), FULL), pytest.raises(UserError, match="a lower resolution"):
        list(train_in_memory(host, dataset, settings(steps=4, batch_size=2), tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == {"my-toy.safetensors", "my-toy.resume"}


def test_it_goes_on_in_ever_smaller_passes_until_they_fit(host, dataset, settings, tmp_path):
    config = settings(steps=3, batch_size=4, preview_every=1)
    whole = list(train_in_memory(host, dataset, config, tmp_path / "calm"))
    with at_forward(host.denoiser, [2, 3], FULL):
        events = list(train_in_memory(host, dataset, config, tmp_path / "full"))
    told = [(type(e), e.step) for e in events if isinstance(e, Step | Preview)]
    assert told == [(type(e), e.step) for e in whole if isinstance(e, Step | Preview)], "each once"
    sizes = [e.message.partition("batch size ")[2][:1] for e in events if isinstance(e, Warning)]
    assert sizes == ["2", "1"]


def test_a_remark_on_the_settings_is_not_repeated(host, dataset, settings, tmp_path):
    config = settings(steps=3, batch_size=4, keep_tags=1)
    with at_forward(host.denoiser, [2, 3], FULL):
        events = list(train_in_memory(host, dataset, config, tmp_path))
    messages = [event.message for event in events if isinstance(event, Warning)]
    assert [message.startswith("keep_tags has no effect") for message in messages] == [True, False, False]


def test_the_memory_of_the_hosts_own_device_is_given_back(host, dataset, settings, tmp_path, monkeypatch):
    """Not CUDA's, whatever the device is: here it is the CPU's, which has no such memory but for this test."""
    given_back = []
    monkeypatch.setattr(torch.cpu, "empty_cache", lambda: given_back.append("cpu"), raising=False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append("cuda"))
    with at_forward(host.denoiser, [2], FULL):
        list(train_in_memory(host, dataset, settings(steps=3, batch_size=4), tmp_path))
    assert given_back == ["cpu"]


def test_an_error_that_is_none_of_the_memory_ends_the_run(host, dataset, settings, tmp_path):
    with at_forward(host.denoiser, [2], raising(RuntimeError("a bug"))), pytest.raises(RuntimeError, match="a bug"):
        list(train_in_memory(host, dataset, settings(steps=4), tmp_path))


def test_what_needs_no_less_is_not_tried_again(host, dataset, settings, tmp_path):
    smallest = settings(steps=4, batch_size=1, gradient_checkpointing=True)
    with at_forward(host.denoiser, [2], FULL), pytest.raises(UserError, match="Batch size 1 at 32 pixels"):
        list(train_in_memory(host, dataset, smallest, tmp_path))


@pytest.mark.parametrize(("size", "accumulation", "less"), [(4, 1, (2, 2)), (3, 2, (1, 6)), (1, 4, (1, 4))])
def test_a_step_keeps_its_pictures(settings, size, accumulation, less):
    smaller = with_less_memory(settings(batch_size=size, accumulation=accumulation))
    assert (smaller.batch_size, smaller.accumulation) == less
    assert smaller.gradient_checkpointing


def test_the_largest_step_may_take_each_image_alone(settings):
    config = settings(batch_size=2, accumulation=256)
    assert with_less_memory(config).accumulation == 512
