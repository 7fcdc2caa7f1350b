"""`benchmarks/abuse.py`: a bounded part of what it tries, on a small model."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="Linux with a C compiler")


@pytest.fixture
def abuse(pipeline_folder, pictures, tmp_path) -> Callable[..., str]:
    """Runs the benchmark on the small model; returns what it printed."""

    def abuse(*command: str) -> str:
        given = ["--model", pipeline_folder, "--images", pictures, "--init", "toy", "--work", tmp_path / "work"]
        (tmp_path / "work").mkdir()
        program = [sys.executable, ROOT / "benchmarks" / "abuse.py", *map(str, given), *command]
        ended = subprocess.run(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    return abuse


@pytest.mark.slow
def test_some_failures_of_a_disk_and_some_power_cuts(abuse):
    said = abuse("files", "--every", "90")
    rows = re.findall(r"\| (.+?) \| (.+?) \| (\d+) \| (\d+) \| 0 \|", said)
    assert len(rows) == 21, "a row for each fault: with a new name, an earlier embedding, an interrupted run"
    assert all(int(tried) > 0 for _, _, tried, _ in rows)


@pytest.mark.slow
def test_some_kills(abuse):
    row = r"\| 3 kills \| (\d) of them left a step to resume from \| \d+ trainings completed \| 0 wrong \|"
    left = [int(count) for count in re.findall(row, abuse("kill", "--times", "6"))]
    assert len(left) == 2, "with a new name, and with an earlier embedding"
    assert sum(left) > 0


def test_a_long_training_is_looked_at_while_it_runs(abuse):
    rows = re.findall(
        r"^\| ([\d,]+) \| ([\d,]+) MiB \| (\d+) \| (\d+) \|", abuse("long", "--steps", "400"), re.MULTILINE
    )
    assert len(rows) > 1
    steps, memory = ([int(row[column].replace(",", "")) for row in rows] for column in (0, 1))
    assert steps == sorted(steps)
    assert min(memory) > 100
