"""What is kept of a long run for its charts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ti_train.drawing.thinned import Thinned, ThinnedByKey


@given(st.integers(0, 3000), st.integers(1, 20).map(lambda half: 2 * half))
def test_a_sequence_of_any_length_stays_short_even_and_whole_at_its_ends(count, most):
    thinned = Thinned[int](most)
    for item in range(count):
        thinned.add(item)
        assert len(thinned.kept) <= most
    found = list(thinned)
    assert found == sorted(set(found))
    if count:
        assert (found[0], found[-1]) == (0, count - 1)
        assert {b - a for a, b in zip(thinned.kept, thinned.kept[1:], strict=False)} <= {thinned.stride}
        assert count - 1 - thinned.kept[-1] < thinned.stride


def test_all_are_kept_while_they_are_few():
    thinned = Thinned[str](4)
    for item in "abcd":
        thinned.add(item)
    assert list(thinned) == list("abcd")


@given(st.lists(st.integers(0, 30), max_size=60))
def test_whoever_applies_the_changes_has_the_whole_sequence(added):
    """As a page does that hears of some items at a time."""
    thinned, copy, item = Thinned[int](8), [], 0
    for count in added:
        for _ in range(count):
            thinned.add(item)
            item += 1
        start, items = thinned.changes()
        copy = copy[:start] + items
        assert copy == list(thinned)


@given(st.integers(1, 200), st.integers(1, 5))
def test_every_key_keeps_its_own_items_in_the_common_order(steps, keys):
    thinned = ThinnedByKey[tuple[int, int]](8)
    for step in range(steps):
        for key in range(keys):
            thinned.add(str(key), (step, key))
    found = list(thinned)
    assert found == sorted(found)
    assert thinned.seen == steps * keys
    for key in range(keys):
        own = [step for step, of in found if of == key]
        assert (own[0], own[-1]) == (0, steps - 1)
        assert len(own) <= 9
