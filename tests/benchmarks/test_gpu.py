"""`benchmarks/gpu.py`: its promises are the README's, a part that fails ends nothing but itself, and it works as far as
it can without a GPU."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def gpu(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.fixture
def part(gpu, monkeypatch, tmp_path) -> Iterator[object]:
    """Writes a part of the benchmark, and runs it as the benchmark does; its rows."""
    package = tmp_path / "gpu_parts"
    package.mkdir()
    for name in ("__init__.py", "__main__.py", "finding.py"):
        (package / name).write_text((BENCHMARKS / "gpu_parts" / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(gpu, "HERE", tmp_path)

    def run(body: str, left: float = 60) -> list:
        text = f"import os, time\nfrom .finding import Finding\n\n\ndef measure(options):\n    {body}\n"
        (package / "demo.py").write_text(text, encoding="utf-8")
        return list(gpu.found("demo", gpu.Options("cpu", str(tmp_path)), left))

    return run


def test_every_promise_stands_in_the_readme(gpu):
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert [promise for promise in gpu.PROMISES.values() if promise not in readme] == []


def test_what_a_part_found_before_it_died_is_kept(part):
    first, last = part("yield Finding('first', {'s': 1.5}, {'learns': True}); os._exit(9)")
    assert (first.finding.case, first.finding.figures, first.failed) == ("first", {"s": 1.5}, False)
    assert (last.finding.figures, last.failed) == ({"said": "exit code 9"}, True)


def test_a_part_that_fails_says_why(part):
    (row,) = part("raise RuntimeError('no kernel image'); yield")
    assert (row.finding.figures, row.failed) == ({"said": "RuntimeError: no kernel image"}, True)


def test_a_part_that_hangs_is_ended_in_time_and_stops_what_it_has_started(part, tmp_path):
    hanging = (
        f"try: yield Finding('first', {{}}); time.sleep(600)\n    finally: open({str(tmp_path / 'stopped')!r}, 'w')"
    )
    *_, last = part(hanging, left=10)
    assert (last.finding.figures, last.failed) == ({"said": "no end within 10 s"}, True)
    assert (tmp_path / "stopped").exists()


def test_a_promise_holds_where_it_held_in_every_case(gpu):
    def row(**promises: bool) -> object:
        return gpu.Row("demo", gpu.Finding("case", {}, promises))

    kept = gpu.verdicts([row(learns=True, resumes=True), row(learns=False), row(resumes=True), row()])
    assert (kept["learns"], kept["resumes"], kept["webui"]) == (False, True, None)
    said = gpu.told(kept)
    assert f'DOES NOT HOLD: "{gpu.PROMISES["learns"]}"' in said
    assert f'not checked: "{gpu.PROMISES["webui"]}"' in said


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_device_that_is_not_there_is_told_at_once(tmp_path):
    done = run("--device", "xpu:7", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert re.search(r"The device 'xpu:7' is not available", done.stdout)
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "parts"), [(("--device", "cpu"), ("waits",)), (("--pretend", "0.3"), ("full_memory",))]
)
def test_it_runs_without_a_gpu(device, parts, tmp_path):
    """The parts that are quickest: all of them take minutes."""
    pytest.importorskip("diffusers")
    if "--pretend" in device:
        pretend_cuda = pytest.importorskip("devices.pretend_cuda")
        if pretend_cuda.reason_against():
            pytest.skip(pretend_cuda.reason_against())
    file = tmp_path / "gpu.json"
    done = run(*device, "--quick", "--only", *parts, "--out", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["simulated"]
    assert {row["part"] for row in figures["rows"]} == {"card", *parts}
    assert figures["promises"]["memory"] is ("--pretend" in device or None)
