"""A worker on a real small model: what it trains, what it skips, what it takes over, and what each end leaves."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_host import TinyHost, at_forward, raising

from ti_train.errors import UserError
from ti_train.fleet import worker as worker_module
from ti_train.fleet.claims import Claims
from ti_train.fleet.job_list import Job
from ti_train.fleet.plan import plan
from ti_train.fleet.records import OWN, Ledger, Record
from ti_train.fleet.train_job import Stopped
from ti_train.fleet.worker import Rules, failed_last, work
from ti_train.training.checkpoint import RunFiles
from ti_train.training.keeping import Course


@pytest.fixture
def fleet(tmp_path, pictures, settings):
    """A fleet of three on one model, with folders of their own."""

    class Fleet:
        def __init__(self) -> None:
            self.out, self.host, self.opened = tmp_path / "out", TinyHost(), 0
            self.rules, self.ledger = Rules(self.out), Ledger(self.out)
            self.jobs = []
            for name in ("one", "two", "pets/three"):
                shutil.copytree(pictures, tmp_path / name)
                config = settings(name=name, seed=len(self.jobs), checkpoint_every=2)
                self.jobs.append(Job(config, {tmp_path / name: 1}, "tiny"))

        def open(self) -> TinyHost:
            self.opened += 1
            return self.host

        def work(self, stop=lambda: False, **rules) -> dict[str, Record]:
            work(self.open, self.jobs, replace(self.rules, **rules), stop)
            return {job.name: self.ledger.read(job.name) for job in self.jobs}

        def vectors(self) -> dict[str, torch.Tensor]:
            return {job.name: next(iter(load_file(self.out / f"{job.name}.safetensors").values())) for job in self.jobs}

    return Fleet()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(worker_module, "AGAIN", 0.01)


def test_every_embedding_is_trained_on_one_opened_model(fleet):
    records = fleet.work()
    assert {record.status for record in records.values()} == {"done"}
    assert {record.steps for record in records.values()} == {6}
    assert fleet.opened == 1
    one, two, three = fleet.vectors().values()
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)


def test_nothing_is_opened_when_all_is_done(fleet):
    fleet.work()
    before = {path: path.stat().st_mtime_ns for path in fleet.out.rglob("*.safetensors")}
    assert plan(fleet.jobs, fleet.ledger, update=True) == []
    fleet.work()
    assert fleet.opened == 1
    assert before == {path: path.stat().st_mtime_ns for path in fleet.out.rglob("*.safetensors")}


def test_what_was_stopped_in_the_middle_continues_to_the_same_bits(fleet, tmp_path):
    fleet.work()
    undisturbed = fleet.vectors()
    shutil.rmtree(fleet.out)
    asked = iter([False] * 5)
    records = fleet.work(stop=lambda: next(asked, True))
    assert records["one"] is None
    assert (fleet.out / "one.resume").exists()
    assert {record.status for record in fleet.work().values()} == {"done"}
    for name, vectors in fleet.vectors().items():
        assert torch.equal(vectors, undisturbed[name])


def test_a_bad_image_fails_its_embedding_only_and_is_not_tried_twice(fleet, tmp_path):
    for path in (tmp_path / "two").glob("*.png"):
        path.write_bytes(b"no image")
    records = fleet.work()
    assert [record.status for record in records.values()] == ["done", "failed", "done"]
    assert "None of the images can be used" in records["two"].error
    assert (records["two"].attempts, records["two"].retry) == (1, "never")
    plan(fleet.jobs, fleet.ledger, update=False)
    assert fleet.work()["two"].attempts == 1
    shutil.copytree(tmp_path / "one", tmp_path / "two", dirs_exist_ok=True)
    plan(fleet.jobs, fleet.ledger, update=False)
    assert fleet.work()["two"].status == "done", "the images were replaced by good ones"


def test_a_folder_that_has_gone_fails_its_embedding_only_and_is_tried_again_later(fleet, tmp_path):
    """The list was checked when it was still there."""
    (tmp_path / "two").rename(tmp_path / "elsewhere")
    records = fleet.work()
    assert [record.status for record in records.values()] == ["done", "failed", "done"]
    assert str(tmp_path / "two") in records["two"].error
    (tmp_path / "elsewhere").rename(tmp_path / "two")
    plan(fleet.jobs, fleet.ledger, update=False)
    assert fleet.work()["two"].status == "done"


def test_a_full_disk_fails_what_does_not_fit_and_the_next_fleet_trains_it(fleet, monkeypatch):
    put = os.replace

    def refuse(source, target):
        if Path(target).parent == fleet.out and Path(target).stem == "two":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(source, target)

    with monkeypatch.context() as full:
        full.setattr(os, "replace", refuse)
        records = fleet.work()
    assert [record.status for record in records.values()] == ["done", "failed", "done"]
    assert "No space left on device" in records["two"].error
    assert records["two"].retry == "later"
    plan(fleet.jobs, fleet.ledger, update=False)
    assert fleet.work()["two"].status == "done"


def test_what_may_pass_the_second_time_is_repeated_and_then_given_up(fleet):
    memory = raising(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    with at_forward(fleet.host.denoiser, range(1, 4), memory):  # two images, one image, one with checkpointing
        assert fleet.work(retries=1)["one"].attempts == 2
    assert fleet.ledger.read("one").status == "done"
    shutil.rmtree(fleet.out)
    with at_forward(fleet.host.denoiser, range(1, 1000), memory):
        records = fleet.work(retries=1)
    assert {(record.status, record.attempts) for record in records.values()} == {("failed", 2)}
    assert "out of memory" in records["one"].error


def test_a_lost_worker_s_embedding_is_taken_over_and_a_deadly_one_given_up(fleet, monkeypatch):
    monkeypatch.setattr(Claims, "_gone", lambda *_: True)
    Claims(fleet.out / OWN).take("one")  # by a worker that ends without an error message
    assert fleet.work()["one"].attempts == 2
    for _ in range(3):
        fleet.ledger.write(replace(fleet.ledger.read("one") or Record("one"), status="waiting"))
        Claims(fleet.out / OWN).take("one")
    fleet.ledger.write(Record("one", "failed", attempts=2, retry="now"))
    Claims(fleet.out / OWN).take("one")
    record = fleet.work()["one"]
    assert (record.status, record.attempts) == ("failed", 3)
    assert "exited without an error message" in record.error


def test_an_unexpected_error_is_recorded_and_ends_the_worker(fleet):
    """A device may be unusable after it: the process is replaced."""
    with (
        at_forward(fleet.host.denoiser, [1], raising(RuntimeError("illegal memory access"))),
        pytest.raises(RuntimeError),
    ):
        fleet.work()
    record = fleet.ledger.read("one")
    assert (record.status, record.retry, record.error) == ("failed", "now", "RuntimeError: illegal memory access")
    assert fleet.work()["one"].status == "done"


def test_a_time_limit_keeps_what_was_trained_and_the_next_fleet_continues(fleet):
    records = fleet.work(time_limit=1e-9)
    assert {record.status for record in records.values()} == {"failed"}
    assert "time limit" in records["one"].error
    plan(fleet.jobs, fleet.ledger, update=False)
    assert fleet.work()["one"].status == "done"


def test_changed_images_are_trained_again_only_if_asked(fleet, tmp_path):
    fleet.work()
    before = fleet.vectors()
    (tmp_path / "one" / "red.png").unlink()
    (remark,) = plan(fleet.jobs, fleet.ledger, update=False)
    assert "1 embedding(s) were trained from other images, options or another model: one." in remark
    fleet.work()
    assert torch.equal(fleet.vectors()["one"], before["one"])
    assert plan(fleet.jobs, fleet.ledger, update=True) == []
    fleet.work()
    assert not torch.equal(fleet.vectors()["one"], before["one"])
    assert torch.equal(fleet.vectors()["two"], before["two"])


@pytest.mark.parametrize("other", [{"early_stop": 1}, {"evaluate_every": 3}, {"dtype": "auto"}])
def test_what_decides_the_result_is_a_change(fleet, other):
    """Also where a run that continues may have another value."""
    fleet.work()
    before = (fleet.out / "one.safetensors").stat().st_mtime_ns
    fleet.jobs[0] = replace(fleet.jobs[0], config=replace(fleet.jobs[0].config, **other))
    (remark,) = plan(fleet.jobs, fleet.ledger, update=False)
    assert "another model: one." in remark
    plan(fleet.jobs, fleet.ledger, update=True)
    assert fleet.work()["one"].seconds
    assert (fleet.out / "one.safetensors").stat().st_mtime_ns > before


def test_a_training_that_made_it_worse_says_which_embedding_is_there(fleet, monkeypatch):
    fleet.work()
    before = fleet.vectors()["one"]
    fleet.jobs[0] = replace(fleet.jobs[0], config=replace(fleet.jobs[0].config, learning_rate=100.0))
    monkeypatch.setattr(Course, "improved", property(lambda _course: False))
    plan(fleet.jobs, fleet.ledger, update=True)
    record = fleet.work()["one"]
    assert record.status == "done"
    assert record.error.startswith("Worse than its untrained vectors, so it is 'one-worse.safetensors'; the earlier")
    assert torch.equal(fleet.vectors()["one"], before)
    assert plan(fleet.jobs, fleet.ledger, update=True) == []
    assert fleet.ledger.read("one") == record, "not trained again and again"


def test_touched_but_equal_images_are_unchanged(fleet, tmp_path):
    fleet.work()
    for path in (tmp_path / "one").iterdir():
        path.touch()
    (tmp_path / "one" / "Thumbs.db").write_bytes(b"what a file manager leaves")
    (tmp_path / "one" / "removed").mkdir()
    shutil.copy(tmp_path / "one" / "red.png", tmp_path / "one" / "removed")
    assert plan(fleet.jobs, fleet.ledger, update=False) == []


def test_an_embedding_of_the_user_s_own_is_not_replaced(fleet):
    fleet.out.mkdir()
    (fleet.out / "two.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match="not of this fleet"):
        plan(fleet.jobs, fleet.ledger, update=True)
    assert (fleet.out / "two.safetensors").read_bytes() == b"mine"


def test_nor_one_of_a_name_that_the_file_system_takes_for_another(fleet):
    """`two` of this list is what was `Two` in an earlier one, where letter case does not tell files apart."""
    fleet.ledger.write(Record("two", "done"))
    record = fleet.out / OWN / "two.json"
    record.write_text(record.read_text().replace('"two"', '"Two"'))
    (fleet.out / "two.safetensors").write_bytes(b"trained")
    fleet.ledger.folder.joinpath("two.claim-1").touch()
    with pytest.raises(UserError, match="not of this fleet"):
        plan(fleet.jobs, fleet.ledger, update=True)


def test_a_finished_embedding_without_its_record_is_found_finished(fleet):
    """The worker was killed between the two."""
    record = fleet.work()["one"]
    (fleet.out / OWN / "one.json").unlink()
    before = (fleet.out / "one.safetensors").stat().st_mtime_ns
    assert plan(fleet.jobs, fleet.ledger, update=False) == []
    found = fleet.work()["one"]
    assert (fleet.out / "one.safetensors").stat().st_mtime_ns == before
    assert (found.status, found.steps, found.kept, found.improved) == ("done", 6, 6, record.improved)
    assert found.loss == pytest.approx(record.loss, rel=1e-5)
    assert found.seconds == pytest.approx(record.seconds, rel=1e-5)


def test_what_a_run_has_left_that_was_killed_after_its_last_step_is_removed(fleet, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(RunFiles, "finish", lambda _: None)
        fleet.work()
    (fleet.out / OWN / "one.json").unlink()
    for name in (".one.lock", ".one.safetensors.123.456", ".one.resume.123.456"):
        (fleet.out / name).write_bytes(b"")
    assert (fleet.out / "one.resume").exists()
    fleet.work()
    assert {file.name for file in fleet.out.iterdir() if "one" in file.name} == {"one.safetensors"}


def test_tables_have_a_line_for_each(fleet, tmp_path):
    fleet.work()
    fleet.ledger.write_tables([fleet.ledger.read(job.name) for job in fleet.jobs])
    assert fleet.ledger.names() == ["one", "two", "pets/three"]
    lines = (fleet.out / "fleet.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("name,status,steps")


def test_what_a_run_outside_of_the_fleet_trains_is_waited_for(fleet):
    """It costs no attempt."""
    other = RunFiles(fleet.out, "one", {}).locked()
    other.__enter__()
    pauses = []

    def sleep(seconds) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            other.__exit__(None, None, None)

    work(fleet.open, fleet.jobs, fleet.rules, lambda: False, sleep=sleep)
    assert pauses == [20] * 5
    record = fleet.ledger.read("one")
    assert (record.status, record.attempts) == ("done", 1)


def test_the_lock_of_a_lost_worker_does_not_keep_its_embedding_from_the_others(fleet, monkeypatch):
    """A file server keeps the lock of a machine that does not come back."""
    monkeypatch.setattr(Claims, "_gone", lambda *_: True)
    Claims(fleet.out / OWN).take("one")
    with RunFiles(fleet.out, "one", {}).locked():
        record = fleet.work()["one"]
    assert (record.status, record.attempts) == ("done", 2)


def test_a_worker_that_wakes_up_leaves_the_record_to_the_one_that_has_taken_over(fleet):
    """Its device may have gone while it slept."""

    def take_over(_output) -> None:
        (fleet.out / OWN / "one.claim-2").touch()
        fleet.ledger.write(Record("one", "done", steps=6))
        raise RuntimeError("device lost")

    with at_forward(fleet.host.denoiser, [3], take_over), pytest.raises(RuntimeError):
        fleet.work()
    record = fleet.ledger.read("one")
    assert (record.status, record.error) == ("done", "")


def test_what_has_ended_a_worker_is_tried_when_all_others_are_trained(fleet, monkeypatch):
    fleet.ledger.write(Record("one", "failed", attempts=1, retry="now"))
    fleet.ledger.write(Record("two", "failed", attempts=2, retry="now"))
    assert [job.name for job in failed_last(fleet.jobs, fleet.ledger)] == ["pets/three", "two", "one"]
    shutil.rmtree(fleet.out)
    monkeypatch.setattr(Claims, "_gone", lambda *_: True)
    Claims(fleet.out / OWN).take("one")
    fleet.work()
    ages = {job.name: (fleet.out / f"{job.name}.safetensors").stat().st_mtime_ns for job in fleet.jobs}
    assert max(ages, key=ages.__getitem__) == "one"


def test_an_evaluation_is_stopped_too_and_repeated(fleet):
    def scores(_host, _job, _out, stop) -> dict[str, float]:
        if stop():
            raise Stopped
        return {"image_similarity": 0.5}

    is_trained = (fleet.out / "one.safetensors").exists
    stopped = fleet.work(stop=lambda: is_trained() and not (fleet.out / "one.resume").exists(), evaluate=scores)
    assert stopped["one"] is None
    record = fleet.work(evaluate=scores)["one"]
    assert (record.status, record.scores) == ("done", {"image_similarity": 0.5})
