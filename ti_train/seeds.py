"""Seeds of a run's random numbers."""

from __future__ import annotations

import hashlib


def seed_from(*parts: object) -> int:
    """A seed of 63 bits from the names of what it is for: streams of one run never meet."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1
