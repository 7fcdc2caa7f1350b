"""Learning rates as A1111 writes them: a number, or rates with their last steps."""

from __future__ import annotations

import math

from ..errors import UserError


def rate_segments(rate: float | str, steps: int) -> list[tuple[float, float]]:
    """A1111's schedule string "0.005:100, 1e-3:1000, 1e-5" -> [(rate, its last step)]; a number is one segment.

    A last step of -1, or none, means to the end. Raises UserError.
    """
    example = 'Write a number such as 0.005, or rates with their last steps: "0.005:100, 1e-3:400, 1e-5".'
    segments: list[tuple[float, float]] = []
    for part in str(rate).split(","):
        value, _, last = part.partition(":")
        try:
            segment = (float(value), math.inf if last.strip() in ("", "-1") else float(int(last)))
        except ValueError:
            raise UserError(f"The learning rate '{rate}' cannot be read at '{part.strip()}'. {example}") from None
        if not 0 <= segment[0] < math.inf:
            raise UserError(f"The learning rate {segment[0]} is not a number from 0 up. {example}")
        if segments and segment[1] <= segments[-1][1]:
            raise UserError(f"The steps in the learning rate '{rate}' do not rise at '{part.strip()}'. {example}")
        segments.append(segment)
    if segments[-1][1] < steps:
        raise UserError(
            f"The learning rate '{rate}' ends at step {segments[-1][1]:.0f} of {steps}. "
            "Add a last rate without a step, or lower steps."
        )
    return segments


def number_or_schedule(rate: float | str | None) -> float | str | None:
    """A plain number as a number, so that the schedule applies to it; None for no text."""
    if rate is None or not str(rate).strip():
        return None
    try:
        return float(rate)
    except ValueError:
        return rate
