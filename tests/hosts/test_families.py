"""What a model's own figures tell of its family."""

from __future__ import annotations

import pytest

from ti_train.hosts.families import resolution_of


@pytest.mark.parametrize(
    ("family", "context_width", "prediction", "side"),
    [
        ("Stable Diffusion 1", 768, "eps", 512),
        ("Stable Diffusion 1 with v-prediction", 768, "v", 512),
        ("Stable Diffusion 2, base", 1024, "eps", 512),
        ("Stable Diffusion 2", 1024, "v", 768),
        ("Stable Diffusion XL", 2048, "eps", 1024),
        ("one that came after", 4096, "flow", 1024),
        ("one that names no width", None, "flow", 1024),
    ],
)
def test_the_side_that_a_family_was_trained_at(family, context_width, prediction, side):
    assert resolution_of(context_width, prediction) == side
