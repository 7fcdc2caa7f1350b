"""The Ray engine on real clusters on this machine: what is lost, what is half done, and what cannot be read."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from ti_train.commands.fleet import opened
from ti_train.errors import UserError
from ti_train.fleet import ray_cluster
from ti_train.fleet.claims import Claims
from ti_train.fleet.inputs import image_files, inputs_of
from ti_train.fleet.job_list import Job
from ti_train.fleet.ray_cluster import keep, pack, packed_run, run_ray, unpack
from ti_train.fleet.records import OWN, Ledger
from ti_train.fleet.worker import Rules, work
from ti_train.training.step_log import read_steps

NAMES = ("one", "two", "pets/three", "four")


def files_in(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_trained_on_travels(tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "toy")
    shutil.copytree(pictures, tmp_path / "toy" / "another embedding's")
    (tmp_path / "toy" / "film.mp4").write_bytes(b"")
    unpack(pack(tmp_path / "toy", image_files(tmp_path / "toy")), tmp_path / "there")
    assert files_in(tmp_path / "there") == files_in(pictures)


def test_a_run_travels_with_what_it_continues_and_comes_back_without_what_it_has_ended(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    ours = ["pets/cat.safetensors", "pets/cat.resume", "pets/cat.preview.png", ".fleet/pets/cat/loss.csv"]
    others = ["pets/cat.v2.safetensors", "pets/dog.resume", ".fleet/pets/cat.json", ".fleet/pets/cat/step00000-0.png"]
    unpack(dict.fromkeys([*ours, *others, "pets/cat-steps/cat-000100.safetensors"], b"before"), here)
    sent = packed_run(here, "pets/cat")
    unpack(sent, there)
    assert files_in(there) == {*ours, "pets/cat-steps/cat-000100.safetensors"}
    (there / "pets" / "cat.resume").unlink()
    (there / "pets" / "cat.safetensors").write_bytes(b"after")
    keep(pack(there, there.rglob("*")), sent, here)
    assert files_in(here) == {*ours, *others, "pets/cat-steps/cat-000100.safetensors"} - {"pets/cat.resume"}
    assert (here / "pets" / "cat.safetensors").read_bytes() == b"after"
    assert packed_run(tmp_path / "nothing yet", "pets/cat") == {}


def test_without_ray_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install .\.\[fleet\]"):
        run_ray(lambda device: None, "", "cpu", 1, [], Rules(tmp_path), lambda: 0)


@pytest.fixture
def cluster():
    """Of one node; the driver connects to it, and leaves it."""
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_lost_node_loses_no_embedding(cluster, pipeline_folder, pictures, settings, tmp_path):
    """One of them is half done at the beginning, one has no images any more."""
    jobs = [Job(settings(name=n, seed=i, steps=30), {pictures: 1}, "tiny") for i, n in enumerate(NAMES)]
    gone = Job(settings(name="gone"), {tmp_path / "gone": 1}, "tiny")
    host, ledger = opened(pipeline_folder, "float32", None, "cpu"), Ledger(tmp_path / "out")
    work(lambda: host, jobs, Rules(tmp_path / "alone"), lambda: False)
    steps = iter(range(12))
    work(lambda: host, jobs[3:], Rules(tmp_path / "out"), lambda: next(steps, None) is None)
    assert (tmp_path / "out" / "four.resume").is_file()

    second = cluster.add_node(num_cpus=1)

    def lose_a_node() -> None:
        while not any(ledger.read(name) for name in NAMES):
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=lose_a_node)
    killer.start()
    open_host = partial(opened, pipeline_folder, "float32", None)
    try:
        run_ray(open_host, cluster.address, "cpu", 2, [gone, *jobs], Rules(tmp_path / "out"), lambda: 0)
    finally:
        killer.join()
    assert (ledger.read("gone").status, ledger.read("gone").retry) == ("failed", "later")
    assert "gone' cannot be read" in ledger.read("gone").error
    for job in jobs:
        record = ledger.read(job.name)
        assert (record.status, record.inputs) == ("done", inputs_of(job))
        alone, found = (load_file(tmp_path / f / f"{job.name}.safetensors")["emb_params"] for f in ("alone", "out"))
        assert torch.equal(found, alone)
        log = read_steps(tmp_path / "out" / ".fleet" / job.name / "loss.csv")
        assert [step.step for step in log if step.step] == [*range(1, 31)]
    assert not [*(tmp_path / "out").rglob("*.resume")]


@pytest.mark.slow
def test_an_actor_that_is_lost_while_it_opens_the_model_is_replaced(
    cluster, pipeline_folder, pictures, settings, tmp_path, monkeypatch
):
    """Unlike one that says why it cannot open it. And a disk that is full for one embedding is so for that one only."""
    marks, jobs = tmp_path / "opened", [Job(settings(name=name), {pictures: 1}, "tiny") for name in ("one", "two")]
    marks.mkdir()

    def deadly(device: str):
        count = len(os.listdir(marks))
        (marks / str(count)).touch()
        if count < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return opened(pipeline_folder, "float32", None, device)

    def full(files, sent, out) -> None:
        if "one.safetensors" in files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        keep(files, sent, out)

    monkeypatch.setattr(ray_cluster, "keep", full)
    run_ray(deadly, cluster.address, "cpu", 1, jobs, Rules(tmp_path / "out"), lambda: 0)
    one, two = (Ledger(tmp_path / "out").read(job.name) for job in jobs)
    assert len(os.listdir(marks)) == 3
    assert (one.status, one.retry, two.status) == ("failed", "later", "done")
    assert "No space left" in one.error

    def refusing(device: str):
        raise UserError(f"There is no model for {device}.")

    with pytest.raises(UserError, match=r"cannot open the model: There is no model for cpu\.$"):
        run_ray(refusing, cluster.address, "cpu", 1, jobs, Rules(tmp_path / "new"), lambda: 0)


@pytest.mark.slow
def test_however_it_ends_what_was_trained_is_kept(cluster, pipeline_folder, pictures, settings, tmp_path):
    """Also on an error of the driver, and after the claim is released."""
    job = Job(settings(name="long", steps=100_000), {pictures: 1}, "tiny")
    began = []

    def look() -> int:
        if Claims(tmp_path / OWN).is_taken("long"):
            began.append(time.monotonic())
        if began and time.monotonic() - began[0] > 8:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 0

    open_host = partial(opened, pipeline_folder, "float32", None)
    with pytest.raises(OSError, match="Input/output error"):
        run_ray(open_host, cluster.address, "cpu", 1, [job], Rules(tmp_path), look)
    assert (tmp_path / "long.resume").is_file()
    assert not Claims(tmp_path / OWN).is_taken("long")
