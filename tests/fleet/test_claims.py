"""Claims: one owner at any time, and what is lost is found, without a server or a common clock."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ti_train.fleet import claims
from ti_train.fleet.claims import Claims
from ti_train.training import run_lock


def test_only_one_of_many_gets_a_claim(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        taken = [claim for claim in pool.map(lambda _: Claims(tmp_path).take("pets/cat"), range(64)) if claim]
    assert [claim.number for claim in taken] == [1]


def test_a_released_claim_is_free_and_not_a_loss(tmp_path):
    with Claims(tmp_path).take("cat").held():
        assert Claims(tmp_path).take("cat") is None
        assert Claims(tmp_path).is_taken("cat")
    assert not Claims(tmp_path).is_taken("cat")
    again = Claims(tmp_path).take("cat")
    assert (again.number, again.lost_owner) == (2, None)


def hold(folder, ready) -> None:
    claim = Claims(folder).take("cat")
    with claim.held():
        ready.set()
        time.sleep(60)


@pytest.mark.skipif(os.name == "nt", reason="needs kill -9")
def test_a_killed_owner_on_this_machine_is_known_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    owner = context.Process(target=hold, args=(tmp_path, ready))
    owner.start()
    assert ready.wait(60)
    assert Claims(tmp_path).take("cat") is None
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    claim = Claims(tmp_path).take("cat")
    assert claim.number == 2
    assert claim.lost_owner


def test_an_owner_on_another_machine_is_gone_when_its_heartbeat_stands_still(tmp_path, monkeypatch):
    """By the clock of whoever watches: the claim's own times may be of another century."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        theirs = Claims(tmp_path).take("cat")
    clock = iter([0.0, 90.0, 110.0, 200.0, 211.0])
    monkeypatch.setattr(claims, "monotonic", lambda: next(clock))
    mine = Claims(tmp_path, expires=100)
    assert [mine.take("cat"), mine.take("cat")] == [None, None]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        theirs.beat()
    assert [mine.take("cat"), mine.take("cat")] == [None, None], "90 seconds since the beat was seen"
    claim = mine.take("cat")
    assert claim.number == 2
    assert claim.lost_owner
    assert theirs.lost(), "the old owner, if it wakes up, stops"
    assert not claim.lost()


def test_the_heart_beats_while_a_claim_is_held(tmp_path):
    claim = Claims(tmp_path).take("cat")
    file = tmp_path / "cat.claim-1"
    with claim.held(expires=0.3):
        before = file.read_bytes()
        time.sleep(0.5)
        assert file.read_bytes() != before


def test_a_claim_that_cannot_be_written_leaves_no_file_that_keeps_others_away(tmp_path, monkeypatch):
    """A full disk still takes an empty file."""
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            Claims(tmp_path).take("cat")
    claim = Claims(tmp_path).take("cat")
    assert (claim.number, claim.lost_owner) == (1, None)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS], ids=["NFS", "Lustre"])
def test_where_there_are_no_locks_the_heartbeat_decides(tmp_path, monkeypatch, number):
    def refuse(_file) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock, "_lock", refuse)
    assert Claims(tmp_path).take("cat")
    mine = Claims(tmp_path, expires=0.05)
    assert mine.take("cat") is None
    time.sleep(0.1)
    assert mine.take("cat").lost_owner


def test_a_machine_of_the_same_name_is_another_machine(tmp_path, monkeypatch):
    """Containers are often called alike. Its locks may not reach this one."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(run_lock, "_machine", lambda: "another boot")
        theirs = Claims(tmp_path).take("cat")
    os.close(theirs._file)
    assert Claims(tmp_path).take("cat") is None, "its heart may beat"


def test_a_claim_that_may_only_be_read_is_judged_by_its_heartbeat(tmp_path, monkeypatch):
    """`fleet status` on a read-only mount."""
    os.close(Claims(tmp_path).take("cat")._file)
    opened = os.open

    def refuse(path, flags, *more):
        if flags & os.O_RDWR:
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    assert Claims(tmp_path).is_taken("cat")


def test_a_claim_of_another_machine_that_is_long_dead_is_not_shown_as_running(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        Claims(tmp_path).take("cat")
    assert Claims(tmp_path).is_taken("cat")
    yesterday = time.time() - 86400
    os.utime(tmp_path / "cat.claim-1", (yesterday, yesterday))
    assert not Claims(tmp_path).is_taken("cat")
