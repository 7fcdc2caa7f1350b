"""The evaluation of learnt words: order, references, interruption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_host import ENCODER, WIDTH, TinyHost

from ti_train.data.dataset import find_pictures
from ti_train.embedding import Embedding
from ti_train.errors import UserError
from ti_train.evaluation.evaluate import (
    PAPERS_PROMPTS,
    EvaluationPrompts,
    Sampled,
    Subject,
    evaluate,
    initial_texts,
    training_pictures,
)
from ti_train.evaluation.samples import Sampling
from ti_train.evaluation.scores import Score
from ti_train.host import Slot

PROMPTS = EvaluationPrompts("a photo of a *", ("a red *", "a blue *"))
SMALL = Sampling(side=32, number=3, steps=2, batch_size=2)


def brightness(picture: Image.Image) -> float:
    return float(np.asarray(picture).mean()) / 255


class BrightnessJudge:
    """Pictures are alike in so far as they are equally bright; a text is met in so far as a picture is bright."""

    name = "brightness"

    def __init__(self, pictures: Sequence[Image.Image]) -> None:
        self.pictures = pictures

    def image_similarity(self, samples: Sequence[Image.Image]) -> float:
        return 1 - abs(np.mean([*map(brightness, samples)]) - np.mean([*map(brightness, self.pictures)]))

    def text_similarity(self, samples: Sequence[Image.Image], prompt: str) -> float:
        return float(np.mean([*map(brightness, samples)]))

    def similarity_of_pictures(self) -> float:
        return 1.0


def learnt(seed: int = 0) -> Subject:
    vectors = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Subject(f"word-{seed}", {ENCODER: vectors})


def events(host: TinyHost, subjects: Sequence[Subject], out: Path) -> list[Sampled | Score]:
    judge = BrightnessJudge([Image.new("RGB", (32, 32), "white"), Image.new("RGB", (32, 32), "gray")])
    return list(evaluate(host, subjects, judge, PROMPTS, SMALL, out))


def scores(*given) -> list[Score]:
    return [event for event in events(*given) if isinstance(event, Score)]


def test_the_training_pictures_come_first_and_then_each_subject(tmp_path):
    pictures, initial, word = scores(TinyHost(), [Subject("toy", "toy"), learnt()], tmp_path)
    assert (pictures.kind, pictures.image_similarity) == ("training pictures", 1.0)
    assert pictures.edits == dict.fromkeys(PROMPTS.edits, pytest.approx((255 + 128) / 2 / 255))
    assert [(s.label, s.kind) for s in (initial, word)] == [("toy", "initial word"), ("word-0", "word")]
    assert list(word.edits) == ["a red *", "a blue *"]


def test_the_score_is_that_of_the_samples_on_disk(tmp_path):
    (_, word) = scores(TinyHost(), [learnt()], tmp_path)
    on_disk = [brightness(Image.open(file)) for file in tmp_path.glob("word-0/a-red-*.png")]
    assert len(on_disk) == 3
    assert word.edits["a red *"] == pytest.approx(np.mean(on_disk))


def test_progress_counts_every_sample_once(tmp_path):
    told = [e for e in events(TinyHost(), [Subject("toy", "toy"), learnt()], tmp_path) if isinstance(e, Sampled)]
    assert {e.total for e in told} == {18}
    assert [told[0].done, told[1].done, told[-1].done] == [0, 2, 18]


class Interrupted(TinyHost):
    """Interrupted within the denoiser's n-th pass, in the middle of a batch."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.passes, self.at, self.seeds = 0, at, []

    def predict(self, *given):
        self.passes += 1
        if self.passes == self.at:
            raise KeyboardInterrupt
        return super().predict(*given)

    def sample(self, request, words):
        pictures = super().sample(request, words)
        self.seeds += [(request.prompts[0], seed) for seed in request.seeds]
        return pictures


def test_stopped_in_mid_run_and_made_anew_it_samples_nothing_twice_and_scores_the_same(tmp_path):
    subjects = [Subject("toy", "toy"), learnt()]
    whole = scores(TinyHost(), subjects, tmp_path / "whole")
    first, second, third = Interrupted(at=30), Interrupted(at=0), Interrupted(at=0)
    with pytest.raises(KeyboardInterrupt):
        events(first, subjects, tmp_path / "broken")
    resumed = events(second, subjects, tmp_path / "broken")
    assert isinstance(resumed[0], Sampled)
    assert resumed[0].done == len(first.seeds) > 0, "it says what is there already"
    assert [e for e in resumed if isinstance(e, Score)] == whole
    assert len(first.seeds + second.seeds) == len(set(first.seeds + second.seeds)) == 18
    assert scores(third, subjects, tmp_path / "broken") == whole
    assert third.seeds == []


def test_another_word_of_the_same_name_does_not_take_up_the_first_ones_samples(tmp_path):
    scores(TinyHost(), [learnt(0)], tmp_path)
    with pytest.raises(UserError, match="made with other settings: word "):
        scores(TinyHost(), [Subject("word-0", learnt(1).content)], tmp_path)


def test_words_that_differ_in_the_last_digits_are_other_words():
    vectors = learnt(0).content[ENCODER]
    others = [Subject("word-0", {ENCODER: values}) for values in (vectors, vectors.clone(), vectors * (1 + 2**-20))]
    first, same, close = (subject.fingerprint for subject in others)
    assert first == same != close


@pytest.mark.parametrize(
    ("name", "folder"), [("my_cat", "my_cat"), ("../up", "up"), ("pets/cat", "pets-cat"), ("a<b>:c", "a-b-c")]
)
def test_samples_are_in_a_folder_of_the_embeddings_name_as_far_as_it_is_a_file_name(name, folder):
    assert Subject(name, {}).folder == folder


def test_vectors_stand_where_the_placeholder_was_and_plain_text_too():
    assert learnt().prompt("a * on the moon") == ("a ", Slot("*"), " on the moon")
    assert Subject("cat", "cat").prompt("a * on the moon") == ("a cat on the moon",)


def word_from(init: str) -> Embedding:
    return Embedding("w", {}, {"config": json.dumps({"init": init})})


@pytest.mark.parametrize(
    ("told", "given", "words"),
    [
        (["cat", "cat", "dog"], "", ["cat", "dog"]),
        (["cat"], "kitten", ["kitten"]),
        (["words/old.safetensors"], "", []),
        ([""], "", []),
    ],
)
def test_the_initial_words_are_those_that_the_files_tell(told, given, words):
    subjects = initial_texts([word_from(init) for init in told], given)
    assert [(s.label, s.content, s.kind) for s in subjects] == [(w, w, "initial word") for w in words]


@pytest.mark.parametrize("kind", PAPERS_PROMPTS)
def test_the_papers_prompts_each_hold_the_word_once(kind):
    assert all(prompt.count("*") == 1 for prompt in PAPERS_PROMPTS[kind])
    assert len(set(PAPERS_PROMPTS[kind])) == len(list(PAPERS_PROMPTS[kind]))


def test_prompts_of_ones_own(tmp_path):
    file = tmp_path / "edits.txt"
    file.write_text("\ufeffa * in the rain\n\n a * on Mars \n", encoding="utf-8")
    assert list(PROMPTS.with_edits(file)) == ["a photo of a *", "a * in the rain", "a * on Mars"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a * in the rain\non Mars", r"'on Mars' in '.*' lacks \*\. Write \* where"),
        (b"\n", "has no prompts"),
        (b"\xff\xfe*", "cannot be read as UTF-8"),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path, content, why):
    (tmp_path / "edits.txt").write_bytes(content)
    with pytest.raises(UserError, match=why):
        PROMPTS.with_edits(tmp_path / "edits.txt")


def test_training_pictures_are_cropped_as_for_training_and_damaged_ones_named(pictures, tmp_path):
    warned: list[str] = []
    (tmp_path / "bad.png").write_bytes(b"")
    read = training_pictures([*find_pictures(pictures), tmp_path / "bad.png"], 16, warned)
    assert [p.size for p in read] == [(16, 16)] * 3
    assert warned[0].startswith("Skipped bad.png")
    with pytest.raises(UserError, match="None of the training images can be used"):
        training_pictures([tmp_path / "bad.png"], 16, [])
