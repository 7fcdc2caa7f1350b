"""The contact sheet of a fleet: the previews of the run that each embedding is of, before and after."""

from __future__ import annotations

import pytest
from PIL import Image
from tiny_host import TinyHost

from ti_train.drawing import contact_sheet
from ti_train.fleet import sheet
from ti_train.fleet.job_list import Job
from ti_train.fleet.sheet import records_of, write_sheets
from ti_train.fleet.worker import Rules, work
from ti_train.training.config import MANY


@pytest.fixture
def train(pictures, settings, tmp_path):
    def train(name: str = "a", **options) -> None:
        job = Job(settings(name=name, **options), {pictures: 1}, "tiny")
        for record in (tmp_path / ".fleet").glob(f"{name}.json"):
            record.unlink()
        work(TinyHost, [job], Rules(tmp_path), lambda: False)

    return train


def shown(monkeypatch, out, names=("a",)) -> list[str]:
    """The previews on the sheets."""
    pairs = []
    monkeypatch.setattr(sheet, "_drawn", lambda found: pairs.extend(found) or b"")
    write_sheets(names, out)
    return [file.name for _, *files in pairs for file in files]


def test_a_sheet_has_the_first_and_the_last_preview(train, tmp_path):
    train("a", preview_every=2)
    train("pets/b", preview_every=MANY)
    train("without")
    paths, without = write_sheets(["a", "pets/b", "without", "untrained"], tmp_path)
    assert (paths, without) == ([tmp_path / "sheet.png"], ["without", "untrained"])
    with Image.open(paths[0]) as picture:
        assert picture.width > 4 * contact_sheet.CELL


def test_previews_of_an_earlier_training_are_not_shown(train, tmp_path, monkeypatch):
    train(steps=9, preview_every=9)
    assert shown(monkeypatch, tmp_path) == ["step00000-0.png", "step00009-0.png"]
    train(steps=6, preview_every=6)
    assert records_of(tmp_path, "a").preview(9, 0).is_file()
    assert shown(monkeypatch, tmp_path) == ["step00000-0.png", "step00006-0.png"]
    train(steps=5)
    assert shown(monkeypatch, tmp_path) == []


def test_a_run_that_ends_early_has_a_preview_of_its_end(train, tmp_path, monkeypatch):
    """At a rate of 0 the validation loss stays what it is: the fourth measurement of it is the last."""
    train(steps=20, learning_rate=0.0, evaluate_every=2, early_stop=3, preview_every=MANY)
    assert shown(monkeypatch, tmp_path) == ["step00000-0.png", "step00008-0.png"]


def test_many_are_on_sheets_of_their_own_and_only_one_is_in_memory(train, tmp_path, monkeypatch):
    """Of each image only what is shown, whatever its size."""
    train(preview_every=6)
    sizes = []

    def drawn(rows, title):
        sizes.append([picture.size for row in rows for picture in row.pictures])
        return contact_sheet.contact_sheet(rows, title)

    monkeypatch.setattr(sheet, "contact_sheet", drawn)
    monkeypatch.setattr(sheet, "ROWS", 2)
    paths, _ = write_sheets(["a"] * 11, tmp_path)
    assert [path.name for path in paths] == ["sheet.png", "sheet-2.png"]
    assert [len(each) for each in sizes] == [16, 6]
    assert {size for each in sizes for size in each} == {(128, 128)}


def test_an_embedding_of_many_steps_has_its_last_preview_last(train, tmp_path, monkeypatch):
    train(preview_every=6)
    last = records_of(tmp_path, "a").preview(6, 0)
    last.rename(records_of(tmp_path, "a").preview(100000, 0))
    records_of(tmp_path, "a").preview(99999, 0).write_bytes(records_of(tmp_path, "a").preview(0, 0).read_bytes())
    assert shown(monkeypatch, tmp_path)[1] == "step100000-0.png"
