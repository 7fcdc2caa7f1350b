"""Trainings that share their passes: each is what it is alone, in a fraction of the passes."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_host import ENCODER, TinyHost, at_forward, raising

from ti_train.fleet import together
from ti_train.fleet.job_list import Job
from ti_train.fleet.records import Ledger, Record
from ti_train.fleet.worker import Rules, work, work_together

NAMES = ("one", "two", "three", "four")


@pytest.fixture
def jobs(pictures, settings) -> list[Job]:
    """Four trainings that differ in length, batch, vectors, schedule and further terms."""
    differ = (
        {"steps": 6}, {"steps": 9, "num_vectors": 2, "batch_size": 1}, {"steps": 4, "accumulation": 2},
        {"steps": 6, "schedule": "constant", "coarse_weight": 0.1, "per_image_words": 0.5},
    )  # fmt: skip
    return [
        Job(settings(name=n, seed=i, **d), {pictures: 1}, "tiny")
        for i, (n, d) in enumerate(zip(NAMES, differ, strict=True))
    ]


def train(host: TinyHost, jobs: list[Job], out: Path, together: int) -> dict[str, Record]:
    rules = Rules(out, together=together)
    (work_together if together > 1 else work)(lambda: host, jobs, rules, lambda: False)
    return {job.name: Ledger(out).read(job.name) for job in jobs}


def vectors(out: Path) -> dict[str, torch.Tensor]:
    return {file.stem: next(iter(load_file(file).values())) for file in out.glob("*.safetensors")}


def forwards(host: TinyHost, train_them) -> int:
    """How often the denoiser is run with gradients."""
    count = 0

    def counting(_output) -> None:
        nonlocal count
        count += 1

    with at_forward(host.denoiser, range(10_000), counting):
        train_them()
    return count


@pytest.mark.parametrize("together", [2, 4])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)])
def test_each_is_what_it_is_alone(jobs, tmp_path, together, dtype, bound):
    train(TinyHost(dtype=dtype), jobs, tmp_path / "alone", 1)
    records = train(TinyHost(dtype=dtype), jobs, tmp_path / "together", together)
    assert {record.status for record in records.values()} == {"done"}
    assert [record.steps for record in records.values()] == [6, 9, 4, 6]
    alone = vectors(tmp_path / "alone")
    for name, found in vectors(tmp_path / "together").items():
        assert torch.allclose(found, alone[name], atol=bound, rtol=0), name


def test_equal_trainings_need_the_passes_of_one(pictures, settings, tmp_path):
    jobs = [Job(settings(name=name, seed=seed), {pictures: 1}, "tiny") for seed, name in enumerate(NAMES)]
    host = TinyHost()
    assert forwards(host, lambda: train(host, jobs, tmp_path / "together", 4)) == 6
    assert forwards(host, lambda: train(host, jobs, tmp_path / "alone", 1)) == 24


def test_without_memory_for_all_each_gets_smaller_batches(jobs, tmp_path):
    host = TinyHost()
    train(host, jobs, tmp_path / "alone", 1)
    with at_forward(host.denoiser, [2], raising(torch.cuda.OutOfMemoryError("CUDA out of memory"))):
        records = train(host, jobs, tmp_path / "together", 4)
    assert {record.status for record in records.values()} == {"done"}
    alone = vectors(tmp_path / "alone")
    for name, found in vectors(tmp_path / "together").items():
        assert torch.allclose(found, alone[name], atol=2e-6), name


def test_one_that_fails_leaves_the_others_as_they_are(jobs, tmp_path):
    host = TinyHost()
    train(host, jobs, tmp_path / "alone", 1)
    jobs[1].config.__dict__["learning_rate"] = float("inf")
    records = train(host, jobs, tmp_path / "together", 4)
    assert [records[name].status for name in ("one", "three", "four")] == ["done"] * 3
    assert records["two"].status == "failed"
    alone = vectors(tmp_path / "alone")
    for name, found in vectors(tmp_path / "together").items():
        assert torch.allclose(found, alone[name], atol=2e-6), name


def test_what_is_no_training_s_fault_ends_all(jobs, tmp_path):
    host = TinyHost()
    with at_forward(host.denoiser, [3], raising(RuntimeError("illegal memory access"))), pytest.raises(RuntimeError):
        train(host, jobs, tmp_path, 4)
    assert {record.status for record in train(host, jobs, tmp_path, 4).values()} == {"done"}


def test_only_those_that_want_deterministic_kernels_need_them(pictures, settings, tmp_path):
    """A device may have none: PyTorch's error for it, where the mode is on."""

    def without_kernel(_output) -> None:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("convolution_backward does not have a deterministic implementation")

    jobs = [
        Job(settings(name=name, deterministic=exact), {pictures: 1}, "tiny")
        for name, exact in (("one", False), ("two", True))
    ]
    host = TinyHost()
    with at_forward(host.denoiser, range(1000), without_kernel):
        records = train(host, jobs, tmp_path, 2)
    assert (records["one"].status, records["two"].status) == ("done", "failed")
    assert "no deterministic kernel" in records["two"].error


def test_what_has_failed_is_repeated_alone(jobs, tmp_path):
    """One of four ends the worker at its second step, each time. The others meet it once."""
    host = TinyHost()
    poison = jobs[1]  # the only one with two vectors

    def deadly(prompts, embeddings, sizes=(), encode=host.encode):
        if torch.is_grad_enabled() and any(len(vectors[ENCODER]) == 2 for vectors in embeddings.values()):
            raise RuntimeError("illegal memory access")
        return encode(prompts, embeddings, sizes)

    host.encode = deadly
    for _ in range(4):  # a new worker each time
        with suppress(RuntimeError):
            records = train(host, jobs, tmp_path, 4)
    assert {name: record.status for name, record in records.items() if name != poison.name} == {
        "one": "done", "three": "done", "four": "done",
    }  # fmt: skip
    assert (records["two"].status, records["two"].attempts) == ("failed", 3)


def test_a_failed_pass_keeps_no_memory(monkeypatch):
    """Before the smaller passes that follow an out-of-memory error, also without Python's garbage collector."""
    tensors = []

    def failing(*_):
        activations = torch.zeros(10)
        tensors.append(weakref.ref(activations))
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(together, "backward_together", failing)
    shared = together.SharedPasses(1)
    gc.disable()
    try:
        with shared.member(0), pytest.raises(torch.cuda.OutOfMemoryError):
            shared.backward(None, SimpleNamespace(config=SimpleNamespace(deterministic=False)))
        assert tensors[0]() is None
    finally:
        gc.enable()
