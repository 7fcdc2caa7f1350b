"""`benchmarks/quality.py`: pairs and their intervals, records that are not made twice, a run from end to end."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

from benchmarks import quality
from benchmarks.quality_parts import training, worlds
from benchmarks.quality_parts.arms import Arm, arms
from benchmarks.quality_parts.photographed import CLASSES, concepts_in
from benchmarks.quality_parts.pictures import Figures, Judged
from benchmarks.quality_parts.records import Record, Records, digest
from benchmarks.quality_parts.tables import difference, each_concept, picture, rows_of, table
from benchmarks.quality_parts.training import config_of
from benchmarks.quality_parts.worlds import Concept
from ti_train.errors import UserError
from ti_train.formats import load_embedding


def record(concept: str = "heart", seed: int = 0, fidelity: float = 0.5, arm: str = "a", images: int = 100) -> Record:
    return Record("w", arm, concept, seed, images, fidelity, 1.0, fidelity, 0.4, 1, 3.0, settings="s")


def test_a_difference_is_that_of_pairs_not_of_means():
    """The second arm lacks one concept, which therefore does not count."""
    base = [record("heart", 0, 0.2), record("star", 0, 0.9)]
    row = [record("heart", 0, 0.3), record("ring", 0, 1.0)]
    found = difference(row, base, "fidelity")
    assert found
    assert found[0] == pytest.approx(0.1)
    assert found[2] == 1


def test_equal_arms_have_no_interval_and_strangers_no_difference():
    rows = [record(concept, seed, 0.1 * seed) for concept in ("heart", "star") for seed in range(3)]
    assert difference(rows, rows, "fidelity") == (0, (0, 0), 6)
    assert difference(rows, [record("ring")], "fidelity") is None


def test_the_interval_is_the_normal_one_where_that_holds():
    """Sixty concepts of one seed each: the mean's standard error is known."""
    rng = random.Random(1)
    gains = [rng.gauss(0.1, 0.05) for _ in range(60)]
    base = [record(str(i), 0, 0.5) for i in range(60)]
    found = difference([replace(b, fidelity=0.5 + g) for b, g in zip(base, gains, strict=True)], base, "fidelity")
    assert found
    middle, (low, high), pairs = found
    error = 1.96 * stdev(gains) / math.sqrt(60)
    assert (middle, pairs) == (pytest.approx(mean(gains)), 60)
    assert low == pytest.approx(mean(gains) - error, abs=0.15 * error)
    assert high == pytest.approx(mean(gains) + error, abs=0.15 * error)


def test_seeds_of_one_concept_are_no_independent_evidence():
    """The same twelve gains as twelve concepts, and as two concepts that differ: the second interval is wider."""
    gains = [0.0] * 6 + [0.2] * 6
    many = [record(str(i), 0, 0.5) for i in range(12)]
    few = [record("heart" if i < 6 else "star", i % 6, 0.5) for i in range(12)]
    widths = []
    for base in (many, few):
        found = difference([replace(b, fidelity=0.5 + g) for b, g in zip(base, gains, strict=True)], base, "fidelity")
        assert found
        widths.append(found[1][1] - found[1][0])
    assert widths[1] > 1.5 * widths[0]


def test_figures_are_means_of_questions_and_ignore_what_was_not_measured():
    answers = {
        "plain": [Judged(1.0, None), Judged(0.5, None)],
        "background": [Judged(0.8, 1.0), Judged(0.6, 0.0)],
        "style": [Judged(None, 1.0), Judged(0.2, 1.0)],
    }
    figures = Figures.of(answers)
    assert (figures.fidelity, figures.edit, figures.further) == (0.75, 0.75, {})
    assert figures.kept == pytest.approx((0.7 + 0.2) / 2)


def test_a_record_is_not_made_twice_but_for_other_settings(tmp_path):
    records = Records(tmp_path)
    records.add(record())
    assert records.has("w", "a", 100, "heart", 0, "s")
    assert not records.has("w", "a", 100, "heart", 0, "t")
    assert not records.has("w", "a", 50, "heart", 0, "s")
    assert records.all() == [record()]
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_the_tables_have_a_row_for_each_arm_and_number_of_images():
    records = [record(c, s, 0.5 + 0.1 * (a == "b"), a) for c in ("heart", "star") for s in (0, 1) for a in "ab"]
    rows = rows_of(records, "w")
    text = table(rows, ["b", "a"], ("a", 100), lambda _record: True)
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| b", "| a"]
    assert "+0.100 [+0.100, +0.100]" in text.splitlines()[2]
    assert each_concept(rows, ["a", "b"]).splitlines()[2] == "| a | 100 | .50 .50 | .50 .50 |"
    assert picture(rows, "w").width > 100


def test_a_further_measure_has_a_column_where_it_was_measured():
    plain = [Judged(0.5, None, {"found": 1.0}), Judged(0.5, None, {"found": 0.8})]
    further = Figures.of({"plain": plain, "style": [Judged(0.5, 1.0)]}).further
    assert further == {"found": pytest.approx(0.9)}
    rows = rows_of([replace(record(), further=further), record("star")], "w")
    assert "| found (worst) |" in table(rows, [], ("a", 100), lambda _record: True)
    assert "| 0.900 (0.90) |" in table(rows, [], ("a", 100), lambda _record: True)


@pytest.mark.parametrize("arm", [arm for arm in arms().values() if arm.kind != "diffusers"], ids=lambda arm: arm.name)
def test_every_arm_is_a_run_that_the_trainer_takes(arm: Arm):
    config = config_of(arm, Concept("heart", Path("heart"), "heart"), 1)
    assert all(images % config.effective_batch == 0 for images in arm.marks)
    assert not arm.marks or max(arm.marks) == config.steps * config.effective_batch


def test_the_mean_of_seeds_has_seen_the_images_of_all_of_them(host, pictures, tmp_path):
    concept, single = (
        Concept("word", pictures, "cat"),
        Arm("short", "preset", {"steps": 2, "batch_size": 1, "resolution": 16}),
    )
    (mean_word,) = training.ours(replace(single, seeds=3), host, concept, 1, tmp_path / "mean")
    words = [next(training.ours(single, host, concept, seed, tmp_path / str(seed))) for seed in (3, 4, 5)]
    vectors = [load_embedding(word.file).vectors for word in words]
    for name, found in load_embedding(mean_word.file).vectors.items():
        torch.testing.assert_close(found, sum(each[name] for each in vectors) / 3)
    assert mean_word.images == 6 == training.images_of(replace(single, seeds=3), concept, 1)


@pytest.mark.slow
def test_photographs_are_judged_in_the_space_of_clip(
    pipeline_folder, pictures, clip_weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(quality, "arms", lambda: {"short": Arm("short", "preset", {"steps": 3})})
    monkeypatch.setattr(worlds, "STEPS", 2)
    for name in ("dog6", "red_toy"):
        shutil.copytree(pictures, tmp_path / "photographs" / name)
    (tmp_path / "photographs" / CLASSES).write_text("subject_name,class\ndog6,cat\n")
    where = ["--out", str(tmp_path / "runs"), "--results", str(tmp_path)]
    model = ["--no-embedded", "--model", str(pipeline_folder), "--photographs", str(tmp_path / "photographs")]
    judge = ["--clip-model", "tiny-clip", "--clip-weights", str(clip_weights)]
    quality.main([*model, *judge, "--seeds", "1", "--few", *where])
    assert f"{pipeline_folder.name} short 12: dog6 0  fidelity " in capsys.readouterr().out
    dog, toy = json.loads((tmp_path / "quality.json").read_text())
    assert (dog["concept"], toy["concept"]) == ("dog6", "red_toy")
    assert -1 <= dog["fidelity"] <= 1
    assert set(dog["by_question"]) == {"plain", "edits"}


def test_dreambooths_list_tells_the_initial_text_else_the_folder_does(tmp_path):
    for name in ("dog6", "red_toy"):
        (tmp_path / name).mkdir()
    (tmp_path / CLASSES).write_text("dog6,puppy\n")
    assert {name: concept.init for name, concept in concepts_in(tmp_path).items()} == {
        "dog6": "puppy",
        "red_toy": "red toy",
    }
    with pytest.raises(UserError, match="no subfolders"):
        concepts_in(tmp_path / "dog6")


@pytest.mark.slow
def test_it_trains_judges_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    pytest.importorskip("diffusers")
    """Three training steps and two sampling steps: the words are bad, but all of it is real."""
    monkeypatch.setattr(quality, "arms", lambda: {"short": Arm("short", "preset", {"steps": 3})})
    monkeypatch.setattr(worlds, "STEPS", 2)
    where = ["--out", str(tmp_path / "runs"), "--results", str(tmp_path)]
    told = []
    for _ in range(2):
        quality.main(["--concepts", "teal-heart", "--seeds", "1", "--few", *where])
        told.append(capsys.readouterr().out)
    first, again = told
    assert "embedded short 12: teal-heart 0  fidelity " in first
    assert "embedded short" not in again
    assert "| short | 12 | 1 |" in again
    (found,) = json.loads((tmp_path / "quality.json").read_text())
    assert (found["arm"], found["images"], found["vectors"]) == ("short", 12, 1)
    assert set(found["by_question"]) == {"plain", "background", "style", "beside"}
    assert 0 <= found["fidelity"] <= 1
    assert (tmp_path / "quality-embedded.png").is_file()
