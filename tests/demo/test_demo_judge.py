"""The evaluation on the embedded model, where the drawn attributes are read from the pixels in place of CLIP."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

from demo.__main__ import main
from demo.concepts import CONCEPTS, load, scenes
from demo.grammar import TOY
from demo.judge import EDITS, SHAPES, DrawnJudge, solid
from demo.measure import fidelity, pixels, read, segment
from demo.world import Artist, Figure, Scene, render
from ti_train.data.dataset import find_pictures
from ti_train.errors import UserError
from ti_train.evaluation.evaluate import EvaluationPrompts, Subject, evaluate, initial_texts, training_pictures
from ti_train.evaluation.samples import Sampling
from ti_train.evaluation.scores import Score
from ti_train.formats import load_embedding
from ti_train.hosts.diffusers.host import DiffusersHost

DEMO = Path(__file__).resolve().parents[2] / "demo"
WORDS = sorted(path.stem for path in (DEMO / "words").glob("*.safetensors"))
DUSK = CONCEPTS["dusk-lines"].truth


def judge(name: str) -> DrawnJudge:
    folder = DEMO / "concepts" / name
    return DrawnJudge.load(folder, training_pictures(find_pictures(folder), 128, []))


@pytest.mark.parametrize("name", WORDS)
def test_training_pictures_show_their_concept(name):
    """Stripes in a small figure are the hardest to read."""
    assert judge(name).similarity_of_pictures() > 0.85


def test_an_object_of_another_hue_shows_two_thirds_of_the_concept():
    red = render(Scene((Figure("heart", 0.0),)))
    assert judge("teal-heart").image_similarity([red]) == pytest.approx(2 / 3, abs=0.05)


def test_a_variety_is_whatever_is_not_the_biased_figure():
    pictures = [render(scene) for scene in scenes(CONCEPTS["fair-toy"], 8)]
    assert judge("fair-toy").image_similarity(pictures) == 1
    assert judge("fair-toy").image_similarity([render(Scene((TOY,)))]) == 0
    assert fidelity(render(Scene((Figure("square", 0.6),))), CONCEPTS["fair-toy"]) == 1


@pytest.mark.parametrize("prompt", EDITS)
def test_the_edit_that_is_drawn_is_the_one_that_is_read(prompt):
    asked = {"style": "photo", "background": "gray"} | EDITS[prompt]
    picture = render(Scene((Figure("heart", 0.47),), asked["background"], asked["style"]))
    shown = {text for text in EDITS if judge("teal-heart").text_similarity([picture], text) == 1}
    assert shown == {prompt}


@pytest.mark.parametrize("manner", ["outline", "solid", "hatched", "stippled"])
@pytest.mark.parametrize("shape", SHAPES.values())
def test_a_shape_is_read_in_every_manner_of_drawing(shape, manner):
    image = pixels(render(Scene((Figure(shape, 0.0),), style=Artist(DUSK.paper, DUSK.ink, manner))))
    assert read(image, solid(segment(image))).shape == shape


def test_a_prompt_that_no_attribute_answers_is_told():
    with pytest.raises(UserError, match=r"cannot measure 'a \* on Mars'. It measures: a photo of a \* on a navy"):
        judge("teal-heart").text_similarity(judge("teal-heart").pictures, "a * on Mars")


def test_a_folder_that_is_no_drawn_concept_is_told(pictures):
    with pytest.raises(UserError, match=r"has no concept\.json: python -m demo evaluate measures the drawn ones"):
        DrawnJudge.load(pictures, [])


@pytest.fixture(scope="module")
def host() -> DiffusersHost:
    return DiffusersHost.load(DEMO / "model")


@pytest.mark.parametrize("name", WORDS)
def test_every_word_that_comes_along_shows_more_than_the_word_it_began_with(host, name, tmp_path):
    """And it can still be edited, which the training pictures themselves cannot."""
    measured, word = judge(name), load_embedding(DEMO / "words" / f"{name}.safetensors")
    subjects = [*initial_texts([word], ""), Subject(name, word.fitted_to(host.widths))]
    prompts = EvaluationPrompts(measured.prompts.plain, measured.prompts.edits[:1])
    sampling = Sampling(128, number=3, steps=8, guidance=4.0)
    events = evaluate(host, subjects, measured, prompts, sampling, tmp_path)
    pictures, before, after = (event for event in events if isinstance(event, Score))
    assert before.image_similarity + 0.1 < after.image_similarity
    assert pictures.text_similarity < 0.5 < after.text_similarity


def test_the_command_measures_a_style(tmp_path, capsys):
    (tmp_path / "edits.txt").write_text("a moon in the style of *", encoding="utf-8")
    given = ["--embedding", DEMO / "words" / "dusk-lines.safetensors", "--images", DEMO / "concepts" / "dusk-lines"]
    given += ["--prompts", tmp_path / "edits.txt", "--out", tmp_path / "out", "--number", 2, "--steps", 4]
    assert main(["evaluate", *map(str, given)]) == 0
    with (tmp_path / "out" / "evaluation.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["kind"]) for row in rows] == [
        ("training pictures", "training pictures"), ("drawing", "initial word"), ("dusk-lines", "word")
    ]  # fmt: skip
    assert all(0 <= float(row["a moon in the style of *"]) <= 1 for row in rows)
    assert len(list(Path(tmp_path / "out" / "samples").rglob("a-painting-in-the-style-of-*.png"))) == 4
    assert "the demo's drawn attributes" in (tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", WORDS)
def test_concepts_are_read_back_as_they_were_written(name):
    assert load(DEMO / "concepts" / name / "concept.json") == CONCEPTS[name]
