"""Which step a run keeps: its last, unless it has lost more than half of what it had gained."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ti_train.training.keeping import Course

LOSSES = st.lists(st.floats(0.01, 1) | st.just(math.nan), max_size=12)


def course(*losses: float) -> Course:
    """Measured at steps 0, 10, 20 ...; the vectors are the step's number."""
    course = Course()
    for i, loss in enumerate(losses):
        course = course.after(10 * i, loss, {"clip_l": torch.tensor([float(10 * i)])})
    return course


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ((0.5,), 0),
        ((0.5, 0.4, 0.3), 20),
        ((0.5, 0.3, 0.3, 0.3, 0.35, 0.35, 0.35), 60),  # a quarter of the gain is lost
        ((0.5, 0.3, 0.3, 0.3, 0.45, 0.45, 0.45), 20),  # three quarters
        ((0.5, 0.3, 0.3, 0.3, 0.6), 40),  # one measurement decides nothing
        ((0.5, 0.4, 0.4, 0.4, 0.1, 0.4, 0.4), 60),  # nor does a single low one
        ((0.5, 0.6, 0.7, 0.8), 30),  # never better than untrained: there is no better step
        ((0.5, 0.4, 0.6, 0.7, 0.8), 10),
        ((0.5, math.nan, 0.3, math.nan), 30),
        ((math.nan, 0.3, 0.9, 0.9), 30),  # without a loss to begin with there is no gain
    ],
)
def test_the_last_step_is_kept_unless_it_has_clearly_become_worse(losses, kept):
    found = course(*losses)
    last = 10 * (len(losses) - 1)
    assert found.kept(last) == kept
    assert found.keeps_best == (kept != last)
    if kept != last:
        assert found.vectors["clip_l"].item() == kept


@pytest.mark.parametrize(
    ("losses", "improved"),
    [((0.5,), None), ((0.5, 0.4), True), ((0.5, 0.5), True), ((0.5, 0.6), False), ((0.0394, 0.04, 0.051), False)],
)
def test_it_is_better_or_worse_than_its_initial_text(losses, improved):
    assert course(*losses).improved is improved


@pytest.mark.parametrize(
    ("losses", "patience", "stalled"),
    [
        ((0.5, 0.4, 0.4, 0.4, 0.4), 2, True),  # the smoothed loss was lowest two measurements ago
        ((0.5, 0.4, 0.4, 0.4, 0.4), 3, False),
        ((0.5, 0.4, 0.4, 0.4, 0.4), 0, False),  # off
        ((0.5, 0.4, 0.4, 0.4, 0.3, 0.3), 2, False),  # it has fallen again
        ((0.5,), 1, False),
    ],
)
def test_it_has_stalled_if_there_was_no_lower_loss_in_as_many_measurements(losses, patience, stalled):
    assert course(*losses).stalled(patience) is stalled


def test_the_reason_has_the_step_and_the_losses():
    risen = course(0.5, 0.3, 0.45, 0.46, 0.47)
    assert risen.why(42) == (
        "Step 10 of 42 is kept: the validation loss was 0.3000 there and has risen to 0.4700 since (untrained: 0.5000)."
    )
    assert (
        course(0.5, 0.3).why(12)
        == "Step 12 is kept, the last one (validation loss 0.3000 at step 10, untrained: 0.5000)."
    )
    assert course().why(3) == "Step 3 is kept, the last one."


@pytest.mark.parametrize(
    ("losses", "warning"),
    [((0.5, 0.3), ""), ((0.5, 0.6), "not better than its initial vectors"), ((0.5, 0.3, 0.6, 0.6), "has risen to")],
)
def test_a_run_that_became_worse_says_so_and_what_to_try(losses, warning):
    said = course(*losses).warning(99)
    assert warning in said
    assert bool(warning) == bool(said)
    assert ("Try fewer steps" in said) == bool(warning)


@given(LOSSES)
def test_it_is_read_back_as_it_was(losses):
    found = course(*losses)
    assert Course.read(found.written(), found.vectors) == found


@given(LOSSES, st.integers(0, 12))
def test_an_interruption_changes_nothing(losses, cut):
    whole, part = course(*losses), course(*losses[:cut])
    resumed = Course.read(part.written(), part.vectors)
    for i, loss in enumerate(losses[cut:], len(losses[:cut])):
        resumed = resumed.after(10 * i, loss, {"clip_l": torch.tensor([float(10 * i)])})
    assert resumed == whole
