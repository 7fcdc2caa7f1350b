"""`benchmarks/validation.py`: what each rule keeps, and what that costs."""

from __future__ import annotations

import json

import pytest

from benchmarks import validation
from benchmarks.quality_parts import worlds
from benchmarks.quality_parts.arms import Arm
from benchmarks.validation import RULES, Run, table


def logs(*losses: float) -> list[list[float]]:
    """Of three samples that nearly agree."""
    return [[loss + 0.001 * sample * step for sample in range(3)] for step, loss in enumerate(losses)]


def test_each_rule_keeps_what_it_says():
    better, worse, little = logs(0, -1, -1.5), logs(0, -1, -0.5), logs(0, -1, -0.95)
    kept = {name: [rule(course) for course in (better, worse, little)] for name, rule in RULES.items()}
    assert kept == {"last": [2, 2, 2], "lowest": [2, 1, 1], "kept": [2, 1, 2]}


def test_the_table_has_what_is_lost_over_all_choices_of_samples():
    """Two choices of samples disagree on which step is the best one; the untrained one cannot be kept."""
    choices = list(zip(logs(0, -1, -0.5), logs(0, -0.5, -1), strict=True))
    run = Run("a", "heart", 0, [0, 24, 48], [1.0, 0.9, 0.7], [list(measured) for measured in choices])
    lines = table([run]).splitlines()[2:]
    assert lines == [
        "| a | last | 2 | 0.200 | 0.20 | 2 |",
        "| a | lowest | 2 | 0.100 | 0.20 | 1 |",
        "| a | kept | 2 | 0.100 | 0.20 | 1 |",
    ]


@pytest.mark.slow
def test_it_trains_measures_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    pytest.importorskip("diffusers")
    arm = Arm("short", "preset", {"steps": 2, "evaluate_every": 1})
    monkeypatch.setattr(validation, "arms", lambda: {"short": arm})
    monkeypatch.setattr(validation, "CHOICES", 2)
    monkeypatch.setattr(worlds, "STEPS", 2)
    told = []
    for _ in range(2):
        validation.main(
            ["--arms", "short", "--concepts", "teal-heart", "--seeds", "1", "--few", "--out", str(tmp_path)]
        )
        told.append(capsys.readouterr().out)
    assert "short-teal-heart-2: fidelity" in told[0]
    assert "short-teal-heart-2: fidelity" not in told[1]
    assert "| short | kept | 2 |" in told[1]
    (file,) = (tmp_path / "courses").rglob("*.json")
    run = Run(**json.loads(file.read_text()))
    assert run.steps == [0, 1, 2]
    assert [[len(samples) for samples in measured] for measured in run.logs] == [[12, 12]] * 3
    assert len(list((tmp_path / "records").rglob("*.json"))) == 1, "for quality.py"
