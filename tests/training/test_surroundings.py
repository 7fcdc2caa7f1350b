"""What changes around a run while it trains: other runs, the folders of its images and of its results, the clock."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_host import TinyHost, dataset_of

from ti_train.errors import BusyError
from ti_train.events import Done, Step
from ti_train.formats import load_embedding
from ti_train.reproducible import EPOCH
from ti_train.training.session import Records, Session
from ti_train.training.step_log import read_steps

NAME = "my-toy"
forks = pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform == "darwin", reason="fork, which macOS advises against"
)


@pytest.fixture
def run(pictures, settings, tmp_path, monkeypatch) -> Callable[..., Done]:
    """Trains with records into a folder; `after` a step is called with its number. Equal runs leave equal files."""
    monkeypatch.setenv(EPOCH, "86400")
    host, images = TinyHost(), shutil.copytree(pictures, tmp_path / "images")
    dataset = dataset_of(host, images)
    config = settings(checkpoint_every=1, copy_every=2, preview_every=2, preview_steps=1)

    def run(folder: Path, after: Callable[[int], object] = lambda step: None, resume: bool = False) -> Done:
        session = Session(config, folder, Records.beside_embedding(folder, NAME))
        for event in session.train(host, dataset, resume):
            if isinstance(event, Step):
                after(event.step)
        return event

    return run


@pytest.fixture
def whole(run, tmp_path) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    run(tmp_path / "whole")
    return files_in(tmp_path / "whole")


def files_in(folder: Path) -> dict[str, bytes]:
    """The files that equal runs leave equal: the step log has times."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.suffix != ".csv"}


@forks
@pytest.mark.parametrize("processes", [2, 5])
def test_of_processes_that_train_one_name_at_once_one_does_and_the_others_are_told(run, whole, tmp_path, processes):
    folder, begin = tmp_path / "shared", time.monotonic() + 0.3
    children = [forked(lambda: told(run, folder, begin)) for _ in range(processes)]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(statuses) == [0, *[1] * (processes - 1)]
    assert files_in(folder) == whole


def told(run: Callable[..., Done], folder: Path, begin: float) -> int:
    """0 after a whole run, which lasts; 1 if another one has the name."""
    time.sleep(max(0.0, begin - time.monotonic()))
    try:
        run(folder, after=lambda step: time.sleep(0.1))
    except BusyError:
        return 1
    return 0


def forked(act: Callable[[], int]) -> int:
    """The process id of a child that ends with the status that `act` returns; 70 after an exception."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        status = act()
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        os._exit(status)


@forks
def test_processes_that_take_turns_at_being_killed_and_continuing_end_in_the_files_of_one(run, whole, tmp_path):
    folder, statuses = tmp_path / "shared", []
    for last in (2, 4, 5):
        child = forked(lambda last=last: run(folder, lambda step: step == last and os._exit(9), last > 2) and 0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert statuses == [9, 9, 9]
    run(folder, resume=True)
    assert files_in(folder) == whole


@pytest.mark.parametrize("change", [shutil.rmtree, lambda images: images.rename(images.with_name("renamed"))])
def test_images_that_are_removed_or_renamed_in_mid_run_are_not_missed(run, whole, tmp_path, change):
    run(tmp_path / "run", lambda step: step == 2 and change(tmp_path / "images"))
    assert files_in(tmp_path / "run") == whole


@pytest.mark.skipif(os.name == "nt", reason="Windows renames no folder with open files")
def test_nothing_is_lost_of_a_run_whose_own_folder_is_renamed(run, whole, tmp_path):
    """The rest of it goes to the old path, with the embedding; what was there before stays where it was put."""
    run(tmp_path / "run", lambda step: step == 3 and (tmp_path / "run").rename(tmp_path / "renamed"))
    there, renamed = files_in(tmp_path / "run"), files_in(tmp_path / "renamed")
    assert there["my-toy.safetensors"] == whole["my-toy.safetensors"]
    assert there.keys() | renamed.keys() >= whole.keys()
    assert load_embedding(tmp_path / "renamed" / "my-toy.safetensors")
    assert not [name for name in (*there, *renamed) if Path(name).suffix[1:].isdecimal()], "no unfinished file"


@pytest.mark.parametrize("jump", [-86400 * 365 * 30, -3600, -0.5, 3600, 86400 * 365 * 30])
def test_a_clock_that_jumps_changes_nothing(run, whole, tmp_path, monkeypatch, jump):
    """Set by hand or over the network, or to another time zone, in each step by as much again."""
    jumps: list[int] = []
    clock, nanoseconds = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: clock() + jump * len(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + int(jump * 1e9) * len(jumps))
    began = time.monotonic()
    done = run(tmp_path / "run", jumps.append)
    assert files_in(tmp_path / "run") == whole
    assert 0 <= done.seconds <= time.monotonic() - began
    seconds = [step.seconds for step in read_steps(tmp_path / "run" / f"{NAME}.csv")]
    assert seconds == sorted(seconds)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has one time zone for all processes")
def test_a_time_zone_that_changes_changes_nothing(run, whole, tmp_path, monkeypatch):
    zones = ["Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati", "XYZ+12"]

    def travelled(step: int) -> None:
        monkeypatch.setenv("TZ", zones[step % len(zones)])
        time.tzset()

    try:
        run(tmp_path / "run", travelled)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert files_in(tmp_path / "run") == whole


def test_two_runs_after_one_another_are_what_each_is_alone(run, whole, tmp_path):
    for folder in ("first", "second"):
        run(tmp_path / folder)
        assert files_in(tmp_path / folder) == whole
