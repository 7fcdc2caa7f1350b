"""The Ray engine on a cluster of two nodes on this machine, one of which is lost in the middle."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from ti_train.commands.fleet import opened
from ti_train.errors import UserError
from ti_train.fleet.job_list import Job
from ti_train.fleet.ray_cluster import pack, run_ray, unpack
from ti_train.fleet.records import Ledger
from ti_train.fleet.worker import Rules, work

NAMES = ("one", "two", "pets/three", "four")


def test_files_travel_as_they_are(tmp_path, pictures):
    (tmp_path / "there" / ".fleet" / "cat").mkdir(parents=True)
    (tmp_path / "there" / ".fleet" / "cat" / "loss.csv").write_text("step")
    (tmp_path / "there" / ".hidden").write_text("")
    (tmp_path / "there" / "pets").mkdir()
    (tmp_path / "there" / "pets" / "cat.safetensors").write_bytes(b"vectors")
    unpack(pack(tmp_path / "there"), tmp_path / "here")
    found = {
        path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*") if path.is_file()
    }
    assert found == {".fleet/cat/loss.csv", "pets/cat.safetensors"}


def test_without_ray_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match="pip install ray"):
        run_ray(lambda device: None, "", "cpu", 1, [], Rules(tmp_path), lambda: 0)


@pytest.mark.slow
def test_a_lost_node_loses_no_embedding(pipeline_folder, pictures, settings, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    jobs = [Job(settings(name=n, seed=i, steps=30), {pictures: 1}, "tiny") for i, n in enumerate(NAMES)]
    open_host = partial(opened, pipeline_folder, "float32", None)
    work(lambda: open_host("cpu"), jobs, Rules(tmp_path / "alone"), lambda: False)

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ledger = Ledger(tmp_path / "out")

    def lose_a_node() -> None:
        while not any(ledger.read(name) for name in NAMES):
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=lose_a_node)
    killer.start()
    try:
        run_ray(open_host, cluster.address, "cpu", 2, jobs, Rules(tmp_path / "out"), lambda: 0)
    finally:
        killer.join()
        cluster.shutdown()
    for name in NAMES:
        assert ledger.read(name).status == "done"
        alone, found = (load_file(tmp_path / f / f"{name}.safetensors")["emb_params"] for f in ("alone", "out"))
        assert torch.equal(found, alone)
        assert (tmp_path / "out" / ".fleet" / name / "loss.csv").is_file()
