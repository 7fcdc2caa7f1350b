"""Speed and time left: by the clock, without the warm-up."""

from __future__ import annotations

from collections.abc import Iterable

from ti_train.training.pace import RECENT, WARM_UP, Pace


def after(*completed: tuple[int, float], total: int = 100) -> Pace:
    """The pace of a run whose steps were completed at these seconds."""
    times: Iterable[float] = iter([seconds for _, seconds in completed])
    pace = Pace(total, lambda: next(times))
    for step, _ in completed:
        pace.completed(step)
    return pace


def test_until_a_step_after_the_warm_up_is_complete_nothing_can_be_told():
    """An estimate that counts the first steps is several times too long."""
    assert WARM_UP == 2
    slow = [(0, 0.0), (1, 60.0), (2, 70.0)]
    for count in range(4):
        pace = after(*slow[:count])
        assert (pace.rate, pace.seconds_left) == (None, None)


def test_the_first_estimate_counts_no_step_of_the_warm_up():
    pace = after((0, 0.0), (1, 60.0), (2, 70.0), (3, 70.5))
    assert (pace.rate, pace.seconds_left) == (2.0, 48.5)
    assert after((0, 0.0), (1, 60.0), (2, 70.0), (3, 70.5), (4, 71.5)).rate == 2 / 1.5


def test_a_resumed_run_has_the_pace_of_its_own_part():
    pace = after((51, 990.0), (52, 999.0), (53, 1000.0), (58, 1001.0))
    assert pace.rate == 5.0
    assert pace.seconds_left == 8.4


def test_a_run_that_becomes_slower_is_followed():
    quick = [(step, float(step)) for step in range(RECENT)]
    slow = [(step, 3.0 * step) for step in range(RECENT, 2 * RECENT + 1)]
    assert after(*quick, *slow, total=1000).rate == 1 / 3


def test_at_the_end_nothing_is_left():
    assert after((0, 0.0), (1, 1.0), (2, 2.0), (100, 20.0)).seconds_left == 0.0


def test_two_steps_in_one_tick_of_the_clock_have_no_speed():
    assert after((0, 0.0), (1, 1.0), (2, 1.0), (3, 1.0)).rate is None
