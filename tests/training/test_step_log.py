"""The CSV of a run's steps, and the drawing of its loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from ti_train.drawing.contact_sheet import Row, contact_sheet
from ti_train.drawing.loss_plot import loss_plot, smoothed
from ti_train.events import Step
from ti_train.training.step_log import COLUMNS, StepLog, read_steps


def step(number: int, loss: float | None = 0.5, evaluation: float | None = None) -> Step:
    return Step(number, loss, evaluation, 0.005, 0.4, 0.9, number / 10)


def write(path, *steps: Step, after: int = 0) -> None:
    log = StepLog(path, after)
    for each in steps:
        log.add(each)
    log.close()


def test_the_csv_has_a_line_a_step_and_blanks_for_what_was_not_measured(tmp_path):
    write(tmp_path / "run.csv", step(0, None, 0.25), step(1))
    assert (tmp_path / "run.csv").read_bytes().decode().splitlines() == [
        ",".join(COLUMNS), "0,,0.25,0.005,0.4,0.9,0", "1,0.5,,0.005,0.4,0.9,0.1"
    ]  # fmt: skip


def test_steps_come_back_as_they_were(tmp_path):
    steps = [step(0, None, 0.25), step(1), step(2, 0.125, 0.5)]
    write(tmp_path / "run.csv", *steps)
    assert read_steps(tmp_path / "run.csv") == steps


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
    assert [s.step for s in log.steps] == there
    assert [s.step for s in read_steps(tmp_path / "run.csv")] == there


def test_no_file_has_no_steps(tmp_path):
    assert read_steps(tmp_path / "none.csv") == []


# --- The drawing ----------------------------------------------------------------

NAN = math.nan
LINE = [step(i, 0.5 - i / 100, 0.4 - i / 100 if i % 5 == 0 else None) for i in range(21)]


def drawn(steps, title: str = "") -> np.ndarray:
    return np.asarray(loss_plot(steps, title)).astype(int)


@pytest.mark.parametrize(
    "steps",
    [
        LINE,
        [step(0, None, 0.3)],
        [step(1, 0.3)],
        [step(1, NAN, NAN)],
        [step(0, None, 0.3), step(1, NAN), step(2, 0.2, 0.1)],
        [step(1, 1e9, 1e9)],
        [step(1, math.inf)],
        [],
    ],
    ids=["a run", "untrained", "one step", "NaN", "a NaN within", "huge", "infinite", "none"],
)
def test_a_drawing_comes_out_whatever_the_run(steps):
    pixels = drawn(steps)
    assert pixels.shape == (420, 900, 3)
    assert (pixels < 200).any(-1).sum() > 300, "axes and their numbers, at least"


def test_the_noise_free_loss_is_a_dark_line_that_falls_as_it_does():
    blue = np.abs(drawn(LINE) - (0x1B, 0x4F, 0x8F)).sum(-1) < 30
    rows, columns = np.nonzero(blue)
    assert columns.max() - columns.min() > 700
    assert rows[columns < 200].mean() < rows[columns > 700].mean() - 50


def test_the_best_measure_is_marked():
    steps = [step(i, None, value) for i, value in enumerate((0.5, 0.1, 0.4))]
    rows, columns = np.nonzero(np.abs(drawn(steps) - (0xC0, 0x30, 0x28)).sum(-1) < 60)
    assert columns.mean() == pytest.approx((78 + 880) / 2, abs=3)
    assert rows.mean() > 330


@pytest.mark.parametrize("title", ["my-cat", "Schlüssel", "猫"])
def test_a_title_in_any_script(title):
    assert (drawn(LINE, title)[:40] < 200).any(-1).sum() > (drawn(LINE)[:40] < 200).any(-1).sum()


def test_smoothing_starts_at_the_first_value_and_follows_slowly():
    assert smoothed([(1, 1.0), (2, 0.0), (3, 0.0)]) == [(1, 1.0), (2, 0.9), (3, pytest.approx(0.81))]
    assert smoothed([]) == []


def test_a_contact_sheet_may_say_words_of_any_script():
    sheet = contact_sheet([Row("ねこ", [Image.new("RGB", (8, 8), "teal")], ["いぬ"])], "ねこ")
    assert sheet.crop((0, 0, 190, 46)).getextrema() != ((255, 255),) * 3
