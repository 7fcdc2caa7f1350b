"""`benchmarks/mutants.py`: what it changes, and whose tests it runs."""

from __future__ import annotations

import ast
from pathlib import Path

from benchmarks.mutants import MOST_TESTS, ROOT, changes_in, mutant_of, own_tests, parsed


def test_each_change_is_one_change_of_what_runs():
    file = ROOT / "ti_train" / "training" / "pace.py"
    changes = [mutant_of(file, number) for number in changes_in(file, dtypes=False)]
    assert changes
    assert len({ast.unparse(parsed(file)), *(change.source for change in changes)}) == len(changes) + 1
    for change in changes:
        compile(change.source, change.file, "exec")


def test_a_file_is_tried_with_the_tests_that_mirror_it():
    for file, tests in {
        "ti_train/training/loop.py": [
            "tests/training/test_loop.py",
            "tests/training/test_loop_resumed.py",
            "tests/training/test_loop_saving.py",
            "tests/training/test_loop_failures.py",
        ],
        "ti_train/hosts/diffusers/host.py": ["tests/hosts/test_diffusers.py"],
        "ti_train/hosts/comfy/fitting.py": ["tests/hosts/test_comfy_fitting.py"],
        "ti_train/formats/preview.py": ["tests/formats/test_modelspec.py", "tests/formats/test_formats.py"],
        "ti_train/__main__.py": ["tests/test_main.py"],
        "nodes/run.py": [],
    }.items():
        assert own_tests(ROOT / Path(file)) == tests


def test_one_that_none_mirrors_is_tried_with_tests_that_import_it():
    tests = own_tests(ROOT / "ti_train" / "fleet" / "records.py")
    assert len(tests) == MOST_TESTS
    assert all("from ti_train.fleet.records import" in (ROOT / test).read_text(encoding="utf-8") for test in tests)
