"""When clients that poll get their turns, by a clock of the test's own."""

from __future__ import annotations

import heapq

import pytest

from ti_train import polling
from ti_train.polling import MOST, SHARE, Turns


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(polling, "monotonic", clock)
    return clock


def asked(clock: Clock, turns: Turns, costs: list[float], seconds: float, pause: float = 0.0) -> list[float]:
    """The moments of clients that begin within a second and come back at their turns, or so long after them."""
    times, waiting = [], [(number / len(costs), cost) for number, cost in enumerate(costs)]
    while waiting[0][0] < seconds:
        clock.now, cost = heapq.heappop(waiting)
        times.append(clock.now)
        heapq.heappush(waiting, (clock.now + turns.next(cost) + pause, cost))
    return times


@pytest.mark.parametrize("cost", [0.0018, 0.005])
def test_one_client_asks_every_second(clock, cost):
    assert len(asked(clock, Turns(1.0), [cost], 60)) == 60


@pytest.mark.parametrize("cost", [0.0018, 0.005])
def test_twenty_clients_cost_less_than_a_percent(clock, cost):
    times = asked(clock, Turns(1.0), [cost] * 20, 600)
    assert len(times) * cost / 600 < 0.01
    assert len(times) * cost / 600 > 0.006, "and no client waits for longer than that needs"


def test_of_two_kinds_too(clock):
    times = asked(clock, Turns(1.0), [0.0018, 0.005] * 10, 600)
    assert len(times) * 0.0034 / 600 < 0.01


def test_turns_that_nobody_took_are_free_at_once_and_no_more(clock):
    turns, cost = Turns(-5.0), 0.0008
    spare = int(5.0 * SHARE / cost)
    for _ in range(2):
        clock.now += 60
        waits = [turns.next(cost) for _ in range(spare + 10)]
        assert waits[:spare] == [0.0] * spare
        assert waits[-1] == pytest.approx((spare + 9) * cost / SHARE - 5.0)
    times = asked(clock, Turns(-5.0), [cost] * 20, 600, pause=1.0)
    assert len(times) * cost / 600 < 0.01


def test_who_does_not_obey_makes_nobody_wait_for_ever(clock):
    turns = Turns(1.0)
    for _ in range(10_000):
        assert turns.next(0.005) <= MOST
    clock.now += MOST
    assert turns.next(0.005) == 1.0
