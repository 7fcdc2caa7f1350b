"""What is different in each file of equal runs: the date, and the run's number.

With SOURCE_DATE_EPOCH set (reproducible-builds.org), both follow from it, so that equal runs leave equal files. For
comparing: runs with one number take each other's unfinished embedding for their own.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from secrets import token_hex

EPOCH = "SOURCE_DATE_EPOCH"  # seconds since 1970


def now() -> datetime:
    """The time in UTC, to the second."""
    seconds = os.environ.get(EPOCH)
    time = datetime.fromtimestamp(int(seconds), timezone.utc) if seconds else datetime.now(timezone.utc)
    return time.replace(microsecond=0)


def new_run() -> str:
    """A number that tells the files of a run from those of others."""
    return os.environ.get(EPOCH) or token_hex(8)
