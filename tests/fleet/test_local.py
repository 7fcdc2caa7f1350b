"""The local engine, with real worker processes on a real small model: deaths, and devices that cannot open it."""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import pytest
from tiny_host import ENCODER, TinyHost

from ti_train.errors import UserError
from ti_train.fleet.job_list import Job
from ti_train.fleet.local import Flag, run_local
from ti_train.fleet.progress import Tally
from ti_train.fleet.records import Ledger, Record
from ti_train.fleet.worker import Rules

POISON = 3  # vectors of an embedding that ends its worker


def opened(device: str) -> TinyHost:
    """Cannot be opened on a device "broken"; is killed by an embedding of so many vectors."""
    if device == "broken":
        raise RuntimeError("CUDA error: invalid device ordinal")
    host = TinyHost()
    encode = host.encode

    def deadly(prompts, embeddings, sizes=()):
        if any(len(vectors[ENCODER]) == POISON for vectors in embeddings.values()):
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(prompts, embeddings, sizes)

    host.encode = deadly
    return host


def train(jobs: list[Job], out: Path, devices: list[str], **rules) -> dict[str, Record]:
    tally = Tally([job.name for job in jobs], Ledger(out), Rules(out, **rules))

    def look(at_once: bool = False) -> int:
        tally.look(at_once)
        return tally.progress

    run_local(opened, devices, jobs, Rules(out, **rules), look)
    return {record.name: record for record in tally.records}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs kill -9")
def test_one_that_ends_each_worker_costs_the_others_nothing(pictures, settings, tmp_path):
    """More repeats than workers may die in a row; a second device that cannot open the model."""
    vectors = {"one": POISON, "two": 1, "three": 1}
    jobs = [Job(settings(name=name, num_vectors=count), {pictures: 1}, "tiny") for name, count in vectors.items()]
    records = train(jobs, tmp_path, ["broken", "cpu"], retries=4)
    assert [record.status for record in records.values()] == ["failed", "done", "done"]
    assert records["one"].attempts == 5
    assert "exited without an error message 5 times" in records["one"].error


@pytest.mark.slow
def test_without_any_device_that_can_open_the_model_the_fleet_ends(pictures, settings, tmp_path, capfd):
    with pytest.raises(UserError, match="No worker can open the model"):
        train([Job(settings(name="one"), {pictures: 1}, "tiny")], tmp_path, ["broken"])
    assert "(device broken): RuntimeError: CUDA error: invalid device ordinal" in capfd.readouterr().err
    assert Ledger(tmp_path).read("one") is None, "the embedding is not to blame"


@pytest.mark.skipif(os.name == "nt", reason="needs kill -9")
@pytest.mark.parametrize("call", range(10))
def test_a_worker_that_is_killed_while_it_looks_at_the_flag_holds_nobody_up(call):
    """Killed at each of the calls and returns in it."""
    flag = Flag(get_context("spawn"))
    worker = os.fork()
    if not worker:
        calls = count()
        sys.setprofile(lambda *_: next(calls) == call and os.kill(os.getpid(), signal.SIGKILL))
        flag.is_set()
        os._exit(0)
    os.waitpid(worker, 0)
    stops = Thread(target=flag.set, daemon=True)
    stops.start()
    stops.join(5)
    assert not stops.is_alive()
    assert flag.is_set()
