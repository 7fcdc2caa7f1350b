"""Which step a run keeps: its last, unless the validation loss has clearly risen since it was lowest."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ti_train.training.keeping import CLEAR, Course, Measured

LOSSES = st.lists(st.floats(0.01, 1) | st.just(math.nan), max_size=12)
APART = 0.02  # how much a sample's loss changes by itself between two measurements in a row: half up, half down


def course(*losses: float) -> Course:
    """Measured at steps 0, 10, 20 ...; the vectors are the step's number.

    Of two measurements in a row the standard error is .006, so a rise by 1.2 % is clear.
    """
    course = Course()
    for i, loss in enumerate(losses):
        logs = [math.log(loss) + i * APART * (-1) ** sample for sample in range(12)]
        course = course.after(10 * i, logs, {"clip_l": torch.tensor([float(10 * i)])})
    return course


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ((0.5,), 0),
        ((0.5, 0.4, 0.3), 20),
        ((0.31, 0.3, 0.303), 20),  # by a hundredth: samples disagree on it
        ((0.31, 0.3, 0.305), 10),
        ((0.5, 0.3, 0.305), 20),  # a twentieth of the gain, though clear
        ((0.5, 0.3, 0.33), 10),
        ((0.5, 0.3, 0.4, 0.303), 30),  # only the end counts
        ((0.31, 0.3, 0.302, 0.304, 0.306), 40),  # the farther apart, the less clear
        ((0.5, 0.6, 0.7, 0.8), 10),  # never better than untrained: the least bad
        ((0.5, math.nan, 0.3, math.nan), 30),
        ((math.nan, 0.3, 0.9, 0.9), 10),  # whatever it began with
    ],
)
def test_the_last_step_is_kept_unless_it_has_clearly_become_worse(losses, kept):
    found = course(*losses)
    last = 10 * (len(losses) - 1)
    assert found.kept(last) == kept
    assert found.keeps_best == (kept != last)
    if kept != last:
        assert found.vectors["clip_l"].item() == kept


def test_what_is_clear_is_seldom_so_by_chance():
    """Of two measurements of equal vectors with noise of their own, one is clearly higher in about 2 % of the cases."""
    rng = np.random.default_rng(0)
    pairs = [(Measured(1, tuple(a)), Measured(2, tuple(b))) for a, b in rng.normal(0, 0.1, (2000, 2, 12))]
    clear = [one.above(other) for one, other in pairs]
    found = sum(risen > CLEAR * error for risen, error in clear) / len(pairs)
    assert 1 - NormalDist().cdf(CLEAR) < found < 0.05  # Student's distribution has wider tails


def test_the_error_is_that_of_the_mean_of_the_samples_differences():
    one, other = Measured(1, (0.1, 0.3, 0.2, 0.4)), Measured(0, (0.0, 0.1, 0.4, 0.1))
    differences = np.array([0.1, 0.2, -0.2, 0.3])
    assert one.above(other) == (pytest.approx(differences.mean()), pytest.approx(differences.std(ddof=1) / 2))


@pytest.mark.parametrize(
    ("losses", "improved"),
    [((0.5,), None), ((0.5, 0.4), True), ((0.5, 0.5), True), ((0.5, 0.6), False), ((0.0394, 0.04, 0.051), False)],
)
def test_it_is_better_or_worse_than_its_initial_text(losses, improved):
    assert course(*losses).improved is improved


@pytest.mark.parametrize(
    ("losses", "patience", "stalled"),
    [
        ((0.5, 0.4, 0.45, 0.45), 2, True),
        ((0.5, 0.4, 0.45, 0.45), 3, False),
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
        logs = [math.log(loss) + i * APART * (-1) ** sample for sample in range(12)]
        resumed = resumed.after(10 * i, logs, {"clip_l": torch.tensor([float(10 * i)])})
    assert resumed == whole
