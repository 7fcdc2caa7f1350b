"""The processor time of other processes, user and system, as Linux's /proc tells it."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_seconds(process: int) -> float:
    """Of a process with all its threads until now; 0 where the system has no /proc."""
    return _seconds(Path("/proc", str(process)))


def thread_seconds(process: int) -> dict[str, float]:
    """Of each of its threads until now, by its number. Raises OSError without /proc."""
    return {thread.name: _seconds(thread) for thread in Path("/proc", str(process), "task").iterdir()}


def _seconds(task: Path) -> float:
    try:
        after_name = (task / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
