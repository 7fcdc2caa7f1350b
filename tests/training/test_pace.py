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


def test_one_step_tells_nothing():
    assert (after().rate, after().seconds_left) == (None, None)
    assert after((0, 0.0)).seconds_left is None


def test_until_the_warm_up_is_over_it_is_all_there_is_to_go_by():
    pace = after((0, 0.0), (1, 10.0), (2, 15.0))
    assert pace.rate == 2 / 15
    assert pace.seconds_left == 98 * 7.5


def test_slow_first_steps_are_not_counted_in():
    pace = after((0, 0.0), (1, 60.0), (2, 70.0), (3, 70.5), (4, 71.0))
    assert WARM_UP == 2
    assert pace.rate == 2.0
    assert pace.seconds_left == 48.0


def test_a_resumed_run_has_the_pace_of_its_own_part():
    pace = after((50, 999.0), (60, 1001.0))
    assert pace.rate == 5.0
    assert pace.seconds_left == 8.0


def test_a_run_that_becomes_slower_is_followed():
    quick = [(step, float(step)) for step in range(RECENT)]
    slow = [(step, 3.0 * step) for step in range(RECENT, 2 * RECENT + 1)]
    assert after(*quick, *slow, total=1000).rate == 1 / 3


def test_at_the_end_nothing_is_left():
    assert after((0, 0.0), (100, 20.0)).seconds_left == 0.0


def test_two_steps_in_one_tick_of_the_clock_have_no_speed():
    assert after((0, 1.0), (1, 1.0)).rate is None
