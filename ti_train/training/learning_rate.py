"""Learning rates in A1111's syntax: a number, or rates with their last steps."""

from __future__ import annotations

import math

from ..errors import UserError


def rate_segments(rate: float | str, steps: int) -> list[tuple[float, float]]:
    """A1111's schedule string "0.005:100, 1e-3:1000, 1e-5" -> [(rate, its last step)]; a number is one segment.

    A last step of -1, or none, means the last step of the run. Raises UserError.
    """
    example = 'Write a number such as 0.005, or rates with their last steps: "0.005:100, 1e-3:400, 1e-5".'
    segments: list[tuple[float, float]] = []
    for part in str(rate).split(","):
        value, _, last = part.partition(":")
        try:
            segment = (float(value), math.inf if last.strip() in ("", "-1") else float(int(last)))
        except ValueError:
            raise UserError(f"The learning rate '{rate}' has an invalid part, '{part.strip()}'. {example}") from None
        if not 0 <= segment[0] < math.inf:
            raise UserError(f"The learning rate is {segment[0]}; it must be a finite number of at least 0. {example}")
        if segments and segment[1] <= segments[-1][1]:
            raise UserError(f"The steps in the learning rate '{rate}' do not increase at '{part.strip()}'. {example}")
        segments.append(segment)
    if segments[-1][1] < steps:
        raise UserError(
            f"The learning rate '{rate}' ends at step {segments[-1][1]:.0f} of {steps}. "
            "Add a final rate without a step, or reduce steps."
        )
    return segments


def number_or_schedule(rate: float | str) -> float | str:
    """A text that is a plain number as that number, to which schedule and warmup apply; any other text as it is."""
    try:
        return float(rate)
    except ValueError:
        return rate
