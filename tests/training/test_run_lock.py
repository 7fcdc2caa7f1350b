"""One run at a time for a name, and no lock that a crash leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ti_train.errors import BusyError, UserError
from ti_train.training import run_lock
from ti_train.training.run_lock import only_run, this_process, unlock

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from ti_train.training.run_lock import only_run
with only_run(Path(sys.argv[1]), "cat"):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_run(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / ".cat.lock"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_run_is_told_who_the_first_one_is(tmp_path, other_run):
    said = rf"'cat' is being trained by another run \(process {other_run.pid} on .+, since 20\d\d-.*choose another name"
    with pytest.raises(UserError, match=said), only_run(tmp_path / ".cat.lock", "cat"):
        pass
    with only_run(tmp_path / ".dog.lock", "dog"):
        pass


def test_so_is_a_second_run_in_the_same_process(tmp_path):
    with only_run(tmp_path / ".cat.lock", "cat"):
        with pytest.raises(UserError, match=f"process {os.getpid()}"), only_run(tmp_path / ".cat.lock", "cat"):
            pass
        assert (tmp_path / ".cat.lock").exists(), "the refused one leaves the lock of the first"
    with only_run(tmp_path / ".cat.lock", "cat"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
def test_the_lock_of_a_run_that_was_killed_locks_nothing(tmp_path, other_run):
    other_run.send_signal(signal.SIGKILL)
    other_run.wait()
    assert (tmp_path / ".cat.lock").read_bytes().startswith(b'{"pid"'), "its file is still there"
    with only_run(tmp_path / ".cat.lock", "cat"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_its_name_with_anything_in_it_is_no_lock(tmp_path):
    (tmp_path / ".cat.lock").write_bytes(b"\xff" * 3000)
    with only_run(tmp_path / ".cat.lock", "cat"):
        assert (tmp_path / ".cat.lock").read_bytes()[:1] == b"{"


def test_without_locks_the_file_says_whose_the_run_is(tmp_path, monkeypatch):
    """Lustre without flock: a run that was taken over while its machine slept knows it when it wakes up."""

    def refuse(_file) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(run_lock, "_lock", refuse)
    path = tmp_path / ".cat.lock"
    with only_run(path, "cat") as sleeper:
        assert sleeper() == "ours"
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(run_lock, "_machine", lambda: "another boot")
            with only_run(path, "cat") as new:
                assert (new(), sleeper()) == ("ours", "another's")
        assert sleeper() == "nobody's"


def test_a_lock_that_a_file_server_keeps_for_a_lost_machine_can_be_taken_from_it(tmp_path):
    path = tmp_path / ".cat.lock"
    with only_run(path, "cat") as lost:
        unlock(path, this_process() | {"host": "a third one"})
        with pytest.raises(BusyError), only_run(path, "cat"):
            pass
        unlock(path, this_process())
        with only_run(path, "cat") as new:
            assert new() == "ours"
        assert lost() == "nobody's"


@pytest.mark.parametrize("call", ["ftruncate", "write", "fsync"])
def test_a_lock_that_cannot_be_written_is_let_go(tmp_path, monkeypatch, call):
    def refuse(*_, **__) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(os, call, refuse)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)), only_run(tmp_path / ".cat.lock", "cat"):
            pass
    assert list(tmp_path.iterdir()) == []
    with only_run(tmp_path / ".cat.lock", "cat"):
        pass


def test_on_a_disk_that_has_become_read_only_the_lock_is_let_go(tmp_path, monkeypatch):
    """Its file stays, and the server's next run of this name must not take it for a run."""

    def refuse(*_, **__) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as read_only, only_run(tmp_path / ".cat.lock", "cat"):
        read_only.setattr(Path, "unlink", refuse)
    with only_run(tmp_path / ".cat.lock", "cat"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_where_locking_itself_fails_no_file_stays_open(tmp_path, monkeypatch):
    opened: list[int] = []
    open_file = os.open

    def refuse(_file) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", lambda *given: opened.append(open_file(*given)) or opened[-1])
    monkeypatch.setattr(run_lock, "_lock", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), only_run(tmp_path / ".cat.lock", "cat"):
        pass
    for file in opened:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(file)
