"""The progress line: how far, how good, how fast, how long."""

from __future__ import annotations

import io

import pytest

from ti_train.commands.progress import Bar, ProgressBar
from ti_train.events import Step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(number: int, seconds: float, loss: float | None = 0.25, evaluation: float | None = None) -> Step:
    return Step(number, loss, evaluation, 0.005, 0.4, 1.0, seconds)


def line_after(*steps: Step, of: int) -> str:
    bar = ProgressBar(of, io.StringIO())
    for each in steps:
        bar.show(each)
    return bar.line(steps[-1].step, steps[-1].seconds, bar.note(steps[-1]))


def test_before_the_first_step():
    line = line_after(step(0, 0, None, 0.5), of=100)
    assert line == "[....................] 0/100  untrained  noise-free 0.5000  0.0 steps/s  starting"


def test_in_mid_run_it_has_the_last_noise_free_loss_the_rate_and_the_time_left():
    line = line_after(step(0, 0, None, 0.5), step(10, 3, evaluation=0.4), step(25, 5), of=100)
    assert line == "[#####...............] 25/100  loss 0.2500  noise-free 0.4000  5.0 steps/s  15 s left"


def test_a_resumed_runs_rate_is_that_of_its_own_part():
    assert "5.0 steps/s  8 s left" in line_after(step(50, 999), step(60, 1001), of=100)


def test_at_the_end_nothing_is_left():
    assert line_after(step(0, 0), step(100, 20), of=100).startswith("[####################] 100/100")
    assert line_after(step(0, 0), step(100, 20), of=100).endswith("0 s left")


@pytest.mark.parametrize(("steps", "lines"), [(100, 11), (7, 8), (25, 11)])
def test_in_a_file_there_is_a_line_every_tenth_and_no_control_character(steps, lines):
    stream = io.StringIO()
    bar = ProgressBar(steps, stream)
    for number in range(steps + 1):
        bar.show(step(number, number))
    bar.end()
    assert len(stream.getvalue().splitlines()) == lines
    assert f"{steps}/{steps}" in stream.getvalue().splitlines()[-1]
    assert "\r" not in stream.getvalue()


def test_on_a_terminal_one_line_is_drawn_over_itself_and_ends_once():
    stream = Terminal()
    bar = ProgressBar(3, stream)
    for number in range(4):
        bar.show(step(number, number))
    bar.end()
    bar.end()
    assert stream.getvalue().count("\n") == 1
    assert "3/3" in stream.getvalue().split("\r")[-1]


def test_a_terminals_line_never_wraps(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    ProgressBar(100, stream).show(step(0, 0))
    assert len(stream.getvalue().strip("\r\n")) < 30


def test_a_message_stands_on_a_line_of_its_own():
    stream = Terminal()
    bar = ProgressBar(3, stream)
    bar.show(step(0, 0))
    bar.say("Warning: careful")
    assert stream.getvalue().endswith("\nWarning: careful\n")


def test_what_comes_in_batches_has_a_line_every_tenth_too():
    stream = io.StringIO()
    bar = Bar(100, "samples", stream)
    for done in range(0, 101, 4):
        bar.draw(done, done / 2)
    assert len(stream.getvalue().splitlines()) == 11
    assert stream.getvalue().splitlines()[-1] == "[####################] 100/100  2.0 samples/s  0 s left"
