"""The harness that runs other trainers: what it sees of a command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="a terminal of its own needs a POSIX system")

from benchmarks.peers_parts.watching import FailedError, watch

BARS = """
import sys, time
from tqdm import tqdm
for seconds in {seconds}:
    for _ in tqdm(range(3)):
        time.sleep(seconds)
"""


def test_the_steps_are_those_of_the_last_bar(tmp_path: Path):
    """Parts of a model may be loaded under a bar that counts to as many."""
    seen = watch([sys.executable, "-c", BARS.format(seconds=[0.01, 0.3])], tmp_path, 3, {})
    (first, _), (_, _), (last, _) = seen.stamps
    assert 0.5 < last - first < seen.seconds


def test_a_command_that_shows_too_few_steps_has_failed(tmp_path: Path):
    with pytest.raises(FailedError, match="exit code 0 after 0 steps"):
        watch([sys.executable, "-c", BARS.format(seconds=[0.01])], tmp_path, 4, {})
