"""The CSV of a run's steps."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest
from vanishing import at_each_moment

from ti_train.events import Step
from ti_train.training.step_log import COLUMNS, StepLog, read_steps


def step(number: int, loss: float | None = 0.5, validation_loss: float | None = None) -> Step:
    return Step(number, loss, validation_loss, 0.005, 0.4, 0.9, number / 10)


def write(path, *steps: Step, after: int = 0) -> None:
    log = StepLog(path, after)
    for each in steps:
        log.add(each)
    log.close()


def test_the_csv_has_a_line_a_step_and_blanks_for_what_was_not_measured(tmp_path):
    write(tmp_path / "run.csv", step(0, None, 0.25), step(1))
    assert (tmp_path / "run.csv").read_bytes().decode().splitlines() == [
        ",".join(COLUMNS), "0,,0.25,0.005,0.4,0.9,0,", "1,0.5,,0.005,0.4,0.9,0.1,"
    ]  # fmt: skip


def test_steps_come_back_as_they_were(tmp_path):
    steps = [step(0, None, 0.25), step(1), replace(step(2, 0.125, 0.5), validation_error=0.03)]
    write(tmp_path / "run.csv", *steps)
    assert read_steps(tmp_path / "run.csv") == steps


def test_a_log_of_a_version_without_errors_is_read(tmp_path):
    write(tmp_path / "run.csv", step(0, None, 0.25), step(1))
    lines = (tmp_path / "run.csv").read_text().splitlines()
    (tmp_path / "run.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    assert read_steps(tmp_path / "run.csv") == [step(0, None, 0.25), step(1)]


def test_a_loss_that_is_no_number_comes_back_too(tmp_path):
    write(tmp_path / "run.csv", step(1, math.nan), step(2, math.inf))
    first, second = read_steps(tmp_path / "run.csv")
    assert math.isnan(first.loss)
    assert second.loss == math.inf


def test_each_line_is_on_disk_as_soon_as_it_is_added(tmp_path):
    log = StepLog(tmp_path / "run.csv")
    log.add(step(1))
    assert [s.step for s in read_steps(tmp_path / "run.csv")] == [1]
    log.close()


@pytest.mark.parametrize(
    ("written", "after", "added", "there"),
    [
        ([0, 1, 2], 2, [3, 4], [0, 1, 2, 3, 4]),
        ([0, 1, 2, 3], 2, [3, 4], [0, 1, 2, 3, 4]),  # a power cut: the log knew more than the checkpoint
        ([0, 1, 2], 0, [0, 1], [0, 1]),  # begun anew
        ([0], -1, [0, 1], [0, 1]),  # resumed before its first step
        ([], 5, [6], [6]),
    ],
)
def test_a_resumed_log_has_every_step_once(tmp_path, written, after, added, there):
    if written:
        write(tmp_path / "run.csv", *map(step, written))
    log = StepLog(tmp_path / "run.csv", after)
    for number in added:
        log.add(step(number))
    log.close()
    assert [s.step for s in log.earlier] + added == there
    assert [s.step for s in read_steps(tmp_path / "run.csv")] == there


def test_no_file_has_no_steps(tmp_path):
    assert read_steps(tmp_path / "none.csv") == []


def test_a_line_that_was_cut_is_left_out(tmp_path):
    """A full disk, a power cut; the run resumes all the same."""
    write(tmp_path / "run.csv", step(1), step(2))
    whole = (tmp_path / "run.csv").read_bytes()
    for length in range(whole.rindex(b"2,"), len(whole)):
        (tmp_path / "run.csv").write_bytes(whole[:length])
        assert [s.step for s in read_steps(tmp_path / "run.csv")] == [1]


def test_the_steps_so_far_are_never_gone_from_the_disk(tmp_path, monkeypatch):
    """Not even if the process is killed while a resumed run opens its log."""
    write(tmp_path / "run.csv", step(1), step(2))
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        StepLog(tmp_path / "run.csv", after=1)
    assert [s.step for s in read_steps(tmp_path / "run.csv")] == [1, 2]


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "damaged",
    [
        b"\0" * 40,
        b"x,y,z",
        b"2,,,,,,,,,,9",
        b"inf,0.5",
        b"nan,0.5",
        b'"2,0.5',
        b"\xff\xfe",
        b"2;0,5;;",
        b"1e999,0.5",
        b"2",
    ],
)
def test_a_damaged_line_is_left_out(tmp_path, damaged):
    """A power cut can leave zeros, and a spreadsheet what it makes of numbers; a run resumes all the same."""
    write(tmp_path / "run.csv", step(1), step(3))
    first, second, third = (tmp_path / "run.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "run.csv").write_bytes(first + second + damaged + b"\r\n" + third)
    assert [s for s in read_steps(tmp_path / "run.csv") if s.step != 2] == [step(1), step(3)]


def test_a_table_that_is_deleted_meanwhile_has_no_steps(tmp_path):
    file = tmp_path / "run.csv"
    file.write_text(",".join(COLUMNS) + "\n")
    assert list(at_each_moment(file, lambda: read_steps(file))) != []
