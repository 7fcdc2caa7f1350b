"""Training runs on disk: which of them is the newest, and which are deleted."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

import pytest

from benchmarks.abuse_parts.mutations import mutation


@pytest.fixture
def records(load_in_comfyui, tmp_path) -> Any:
    sys.modules["folder_paths"].get_user_directory = lambda: str(tmp_path)
    return load_in_comfyui("nodes.page.records")


def run(name: str, status: str = "done") -> dict[str, Any]:
    return {"name": name, "status": status, "prompt": f"embedding:{name}", "settings": {"name": name}, "previews": []}


WHOLE = run("cat", "interrupted") | {
    "previews": [{"number": 0, "step": 3, "prompt": "a cat", "prompt_number": 0, "width": 8, "height": 8}],
    "loss": [[1, 0.5], [2, 0.25]], "evaluations": [[0, 0.5]], "band": [[0, 0.4, 0.6]], "best": [2, 0.25], "step": 2,
    "steps": 4, "began": 1.5, "warnings": ["what"], "nearest": {"clip_l": [["kitten", 0.5]]}, "elapsed": 2.5,
}  # fmt: skip


def recorded(records, name: str, status: str = "done", ahead: float = 0) -> Any:
    """A new record. ahead: seconds by which the clock is wrong when it's written."""
    record = records.new_record()
    record.write(run(name, status))
    if ahead:
        later = time.time() + ahead
        os.utime(record.folder / "run.json", (later, later))
    return record


def test_the_oldest_are_deleted(records):
    made = [recorded(records, str(n)) for n in range(records.KEPT + 2)]
    records.delete_old()
    assert records.records() == made[:1:-1]


def test_after_the_clock_was_set_back_a_new_run_is_the_newest_all_the_same(records):
    for n in range(records.KEPT):
        recorded(records, str(n), "interrupted", ahead=3600)
    new = recorded(records, "3")
    records.delete_old()
    assert records.records()[0] == new
    assert records.interrupted_run("3") is None, "its newest run is done"


def test_renamed_runs_keep_their_order(records):
    first, second = recorded(records, "cat", "interrupted"), recorded(records, "dog")
    records.rename("cat", "my-cat")
    assert records.records() == [second, first]
    assert records.interrupted_run("my-cat") == first
    assert first.read()["prompt"] == "embedding:my-cat"


def test_what_a_killed_server_left_is_deleted_at_the_start_of_the_next(records):
    kept, empty = recorded(records, "cat"), records.new_record()
    empty.folder.mkdir()
    for file in (kept.folder / ".1.safetensors.1234", kept.folder / "1.jpg", empty.folder / ".run.json.1234"):
        file.touch()
    records.delete_unfinished()
    assert {path.name for path in kept.folder.iterdir()} == {"run.json", "1.jpg"}
    assert not empty.folder.exists()


def test_a_record_that_was_changed_at_random_is_shown_or_counts_as_none(records):
    """The page shows none of the others if it fails for one: a browser reads no NaN."""
    record, valid, draw = recorded(records, "cat"), json.dumps(WHOLE).encode(), random.Random(0)
    shown = 0
    for case in range(1500):
        data = valid if case == 0 else mutation(valid, draw)
        (record.folder / "run.json").write_bytes(data)
        run = record.read()
        assert json.dumps(run, allow_nan=False).encode(), data
        if run:
            shown += 1
            records.interrupted_run(run["name"])
            assert records.renamed(run, "dog")["name"] == "dog"
    assert 1 < shown < 1500
