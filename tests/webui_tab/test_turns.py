"""How often those who follow a training are told to ask; no WebUI is needed."""

from __future__ import annotations

import heapq

import pytest


@pytest.fixture
def module(load_in_webui, monkeypatch):
    turns = load_in_webui("webui_tab.turns")
    turns.clock = 0.0
    monkeypatch.setattr(turns, "monotonic", lambda: turns.clock)
    return turns


def asked(module, costs: list[float], seconds: float, obey: bool = True) -> list[float]:
    """When clients ask that begin within a second and come back when they are told to, or every second."""
    turns, times = module.Turns(), []
    waiting = [(number / len(costs), cost) for number, cost in enumerate(costs)]
    while waiting[0][0] < seconds:
        module.clock, cost = heapq.heappop(waiting)
        times.append(module.clock)
        again = turns.next(cost)
        heapq.heappush(waiting, (module.clock + (again if obey else 1.0), cost))
    return times


def test_one_client_asks_every_second(module):
    for cost in (module.STATUS, module.LOOK):
        assert len(asked(module, [cost], 60)) == 60


@pytest.mark.parametrize("kind", ["STATUS", "LOOK"])
def test_twenty_clients_cost_less_than_a_percent(module, kind):
    cost = getattr(module, kind)
    times = asked(module, [cost] * 20, 600)
    assert len(times) * cost / 600 < 0.01
    assert len(times) * cost / 600 > 0.006, "and no client waits for longer than that needs"


def test_of_both_kinds_too(module):
    costs = [module.STATUS, module.LOOK] * 10
    times = asked(module, costs, 600)
    assert len(times) * (module.STATUS + module.LOOK) / 2 / 600 < 0.01


def test_who_does_not_obey_makes_nobody_wait_for_ever(module):
    turns = module.Turns()
    for _ in range(10_000):
        assert turns.next(module.LOOK) <= module.MOST
    module.clock += module.MOST
    assert turns.next(module.LOOK) == module.LEAST
