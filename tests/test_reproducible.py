"""Equal runs leave equal files if SOURCE_DATE_EPOCH is set."""

from __future__ import annotations

from ti_train.reproducible import EPOCH, new_run, now
from ti_train.training.loop import train


def test_equal_runs_leave_equal_files(host, dataset, settings, tmp_path, monkeypatch):
    monkeypatch.setenv(EPOCH, "86400")
    for folder in ("one", "two"):
        list(train(host, dataset, settings(), tmp_path / folder))
    one, two = ((tmp_path / folder / "my-toy.safetensors").read_bytes() for folder in ("one", "two"))
    assert b"1970-01-02T00:00:00+00:00" in one or b"modelspec.date" not in one
    assert one == two


def test_otherwise_each_run_has_its_number_and_its_date(monkeypatch):
    monkeypatch.delenv(EPOCH, raising=False)
    assert new_run() != new_run()
    assert now().year > 2000
