"""Runs a function of a test on a pretended card, in a process of its own: a card is pretended once in a process.

    from devices.runner import on_card

    def sum_of(numbers: list[float]) -> float:
        return float(torch.tensor(numbers, device="cuda").sum())

    def test_it_adds():
        assert on_card(sum_of, [1.0, 2.0], gib=0.5) == 3

The function stands at the top of its module, which is loaded by its path; its arguments and its answer are JSON.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parent


def on_card(
    function: Callable[..., Any],
    *args: Any,
    gib: float = 24,
    capability: tuple[int, int] = (8, 6),
    python: str = sys.executable,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """What the function answers on a pretended card of so many GiB; skips the test where none can be pretended.

    python, cwd, environment: whose process it is, where that is a host's. The child's own failure is the test's.
    """
    card = {"gib": gib, "capability": capability}
    return apart(function, *args, card=card, python=python, cwd=cwd, environment=environment)


def apart(
    function: Callable[..., Any],
    *args: Any,
    card: Mapping[str, Any] | None = None,
    python: str = sys.executable,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """The same without a card, unless one is given."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        task = {
            "file": inspect.getfile(function), "function": function.__name__, "args": args, "card": card,
            "answer": str(answer),
        }  # fmt: skip
        done = subprocess.run(
            [python, "-m", "devices.runner", json.dumps(task, default=str)],
            cwd=cwd, env=_environment(environment or {}), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "skip" in found:
        pytest.skip(found["skip"])
    return found["answer"]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """One thread: sums in one order, so that equal means equal."""
    own = {"PYTHONPATH": f"{TESTS}{os.pathsep}{REPOSITORY}", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | own | more


def main(task: dict[str, Any]) -> None:
    """The child's side."""
    from devices.pretend_cuda import install, reason_against

    card = task["card"]
    against = reason_against() if card else None
    if against is None:
        if card:
            install(gib=card["gib"], capability=tuple(card["capability"]))
        found = {"answer": _loaded(Path(task["file"]), task["function"])(*task["args"])}
    else:
        found = {"skip": against}
    Path(task["answer"]).write_text(json.dumps(found), encoding="utf-8")


def _loaded(file: Path, name: str) -> Callable[..., Any]:
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Autograd's thread of the card may still let go of Python objects: an interpreter that ends meanwhile aborts
    os._exit(0)
