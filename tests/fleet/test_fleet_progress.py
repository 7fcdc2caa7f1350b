"""How far a fleet is, for its own command, for others, and for the tables."""

from __future__ import annotations

import csv
import json
import os
import time

import pytest

from ti_train.fleet.claims import Claims
from ti_train.fleet.progress import Tally, Throttled
from ti_train.fleet.records import OWN, Ledger, Record
from ti_train.fleet.worker import Rules

NAMES = ("a", "b", "c", "d")


def test_the_tables_of_a_shard_keep_what_the_other_shards_have_done_in_the_same_folder(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.write(Record("a", "done", steps=6))
    tally = Tally(NAMES, ledger, Rules(tmp_path), own=("b", "d"))
    assert tally.line() == "0 of 2 done, 2 waiting"
    ledger.write_tables(tally.table)
    assert ledger.names() == ["a", "b", "d"], "nothing is known of c"
    for name in ("b", "d"):
        ledger.write(Record(name, "done"))
    tally.look(at_once=True)
    assert (tally.is_complete, tally.line()) == (True, "2 of 2 done")


def test_whoever_asks_is_told_how_fast_it_goes(tmp_path):
    """From the times of the records, since the latest command."""
    ledger, now = Ledger(tmp_path), time.time()
    for number, name in enumerate(NAMES[:3]):
        ledger.write(Record(name, "done"))
        written = now - 3600 * (2 - number)  # two hours ago, one, and now
        os.utime(tmp_path / OWN / f"{name}.json", (written, written))
    with Claims(tmp_path / OWN).take("d").held():
        line = Tally(NAMES, ledger, Rules(tmp_path), since=now - 5400).line()
        assert line == "3 of 4 done, 1 running; 1 per hour, 45 min left"
    assert Tally(NAMES, ledger, Rules(tmp_path), since=now - 5400).line() == "3 of 4 done, 1 waiting", "nobody works"


def test_what_counts_as_failed_is_what_the_latest_command_says(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.write(Record("a", "failed", attempts=3, retry="now"))
    assert ledger.command() is None
    ledger.begin(retries=4)
    assert ledger.command().retries == 4
    assert ledger.read(".command") is None
    assert Tally(["a"], ledger, Rules(tmp_path, ledger.command().retries)).line() == "0 of 1 done, 1 waiting"


def test_poor_embeddings_are_flagged_in_the_tables(tmp_path):
    scores = ({"image_similarity": 0.6}, {"image_similarity": 0.8}, {})
    records = [Record(name, "done", scores=score) for name, score in zip("abc", scores, strict=True)]
    Ledger(tmp_path).write_tables(records, threshold=0.7)
    assert [row["below_threshold"] for row in json.loads((tmp_path / "fleet.json").read_bytes())] == [True, False, None]
    with (tmp_path / "fleet.csv").open(newline="") as file:
        assert [row["below_threshold"] for row in csv.DictReader(file)] == ["True", "False", ""]
    Ledger(tmp_path).write_tables(records)
    assert [row["below_threshold"] for row in json.loads((tmp_path / "fleet.json").read_bytes())] == [None] * 3


def test_what_takes_long_is_done_seldom():
    times = []

    def slow() -> None:
        times.append(time.monotonic())
        time.sleep(0.01)

    throttled, began = Throttled(slow), time.monotonic()
    while time.monotonic() - began < 1.2:
        throttled()
        time.sleep(0.001)
    assert 2 <= len(times) <= 3, "0.01 of 0.5 seconds"
    throttled(at_once=True)
    assert time.monotonic() - times[-1] < 0.5
    seldom = Throttled(slow, least=100)
    for _ in range(10):
        seldom()
    assert len(times) <= 5


@pytest.mark.parametrize(
    "said",
    [
        "[" * 100_000,
        "7",
        "null",
        *(
            json.dumps({"name": "a", "status": "done", "remarks": []} | changed)
            for changed in (
                {"name": 7},
                {"name": "A"},  # on a file system that does not tell them apart
                {"status": "finished"},
                {"status": []},
                {"retry": "perhaps"},
                {"steps": "many"},
                {"attempts": None},
                {"loss": "low"},
                {"remarks": "x"},
                {"remarks": [1]},
                {"scores": []},
                {"scores": {"image_similarity": "high"}},
                {"seconds": {}},
                {"inputs": {"files": {}}},
                {"inputs": {"options": {}, "files": {"0/a.png": [1, 2]}}},
                {"inputs": {"options": {}, "files": [], "more": 1}},
                {"unknown": 1},
            )
        ),
    ],
)
def test_a_record_that_no_worker_has_written_counts_as_none(tmp_path, said):
    ledger = Ledger(tmp_path)
    ledger.write(Record("a", "done", steps=3, loss=0.5, scores={"image_similarity": 1}))
    assert ledger.read("a").steps == 3
    (tmp_path / OWN / "a.json").write_text(said)
    assert ledger.read("a") is None


@pytest.mark.parametrize(
    "said", ["[" * 100_000, "7", '{"retries": "x", "began": 1.0}', '{"retries": 1, "began": null}']
)
def test_a_damaged_note_of_the_command_counts_as_none(tmp_path, said):
    ledger = Ledger(tmp_path)
    ledger.begin(2)
    assert ledger.command().retries == 2
    (tmp_path / OWN / ".command.json").write_text(said)
    assert ledger.command() is None
