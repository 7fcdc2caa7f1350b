"""How a WebUI samples previews."""

from __future__ import annotations

from typing import NamedTuple

SAMPLER = "Euler"  # available in every WebUI, and adds no noise


class PreviewSettings(NamedTuple):
    """Zeros are the core's own values (SampleRequest)."""

    sampler: str = SAMPLER
    steps: int = 0
    guidance: float = 0.0
    width: int = 0  # pixels
    height: int = 0
