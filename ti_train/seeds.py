"""Seeds for the independent random streams of a run."""

from __future__ import annotations

import hashlib


def seed_from(*parts: object) -> int:
    """A 63-bit seed hashed from its parts, so that the streams of one run never coincide."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1
