"""The progress line: how far, how good, how fast, how long."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from ti_train.commands.progress import Bar, TrainingBar, scores_of
from ti_train.evaluation.evaluate import Sampled
from ti_train.events import Step
from ti_train.training.pace import Pace
from ti_train.training.session import Session


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(number: int, loss: float | None = 0.25, validation_loss: float | None = None) -> Step:
    return Step(number, loss, validation_loss, 0.005, 0.4, 1.0, 0.0)


@pytest.fixture
def drawn(settings):
    """Shows some steps of a run, each some seconds after the beginning, on a bar; returns what it writes in memory."""

    def drawn(*steps: tuple[Step, float], of: int, stream: TextIO | None = None) -> str:
        session, stream, now = Session(settings(steps=of), Path()), stream or io.StringIO(), 0.0
        session.pace = Pace(of, lambda: now)
        bar = TrainingBar(session, stream)
        for each, now in steps:  # noqa: B007 - the clock reads it
            session.steps.append(each)
            session.pace.completed(each.step)
            bar.show(each)
        bar.end()
        bar.end()
        return stream.getvalue() if isinstance(stream, io.StringIO) else ""

    return drawn


def test_before_the_first_step(drawn):
    (line,) = drawn((step(0, None, 0.5), 0), of=100).splitlines()
    assert line == "[....................] 0/100  untrained  validation 0.5000  starting"


def test_in_mid_run_it_has_the_last_noise_free_loss_the_rate_and_the_time_left(drawn):
    told = drawn((step(0, None, 0.5), 0), (step(1), 2), (step(10, validation_loss=0.4), 3), (step(25), 6), of=100)
    assert (
        told.splitlines()[-1] == "[#####...............] 25/100  loss 0.2500  validation 0.4000  5.0 steps/s  15 s left"
    )


def test_at_the_end_nothing_is_left(drawn):
    line = drawn((step(0), 0), (step(1), 1), (step(50), 10), (step(100), 20), of=100).splitlines()[-1]
    assert line.startswith("[####################] 100/100")
    assert line.endswith("0 s left")


@pytest.mark.parametrize(("steps", "lines"), [(100, 11), (7, 8), (25, 11)])
def test_in_a_file_there_is_a_line_every_tenth_and_no_control_character(drawn, steps, lines):
    told = drawn(*((step(number), number) for number in range(steps + 1)), of=steps)
    assert len(told.splitlines()) == lines
    assert f"{steps}/{steps}" in told.splitlines()[-1]
    assert "\r" not in told


def test_on_a_terminal_one_line_is_drawn_over_itself_and_ends_once(drawn):
    told = drawn(*((step(number), number) for number in range(4)), of=3, stream=Terminal())
    assert told.count("\n") == 1
    assert "3/3" in told.split("\r")[-1]


def written_to(screen: int) -> str:
    """All that came through a terminal whose other end is closed."""
    told = b""
    with contextlib.suppress(OSError):  # Linux's end of file
        while piece := os.read(screen, 10_000):
            told += piece
    os.close(screen)
    return told.decode()


def test_a_terminals_line_never_wraps(drawn):
    fcntl, termios = (pytest.importorskip(name, reason="a Unix terminal is needed") for name in ("fcntl", "termios"))
    screen, keyboard = os.openpty()
    rows, columns = 24, 30
    fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    with open(keyboard, "w", encoding="utf-8") as terminal:
        drawn((step(0), 0), (step(1), 1), of=1, stream=terminal)
    told = written_to(screen)
    assert "1/1" in told
    assert max(len(line) for line in told.strip("\r\n").split("\r")) <= columns


def test_a_message_stands_on_a_line_of_its_own():
    stream = Terminal()
    bar = Bar(Pace(3), "steps", stream)
    bar.draw(0)
    bar.write("Warning: careful")
    assert "\rWarning: careful\n" in stream.getvalue()
    bar.end()


def test_what_comes_in_batches_has_a_line_every_tenth_too():
    stream, now = io.StringIO(), 0.0
    bar = Bar(Pace(100, lambda: now), "samples", stream)
    for done in range(0, 101, 4):
        now = done / 2
        bar.pace.completed(done)
        bar.draw(done)
    assert len(stream.getvalue().splitlines()) == 11
    assert stream.getvalue().splitlines()[-1] == "[####################] 100/100  2.0 samples/s  0 s left"


def test_an_evaluation_that_fails_leaves_the_terminal_a_line_of_its_own(monkeypatch):
    def events() -> Iterator[Sampled]:
        yield Sampled(1, 4)
        raise OSError("the disk is full")

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(OSError, match="full"):
        scores_of(events())
    assert "1/4" in stream.getvalue()
    assert stream.getvalue().endswith("\n")
