"""A comparison of embeddings: its order, and its sheet."""

from __future__ import annotations

import torch
from tiny_host import ENCODER, WIDTH, TinyHost

from ti_train.evaluation.comparison import compare, comparison_sheet
from ti_train.evaluation.evaluate import Subject
from ti_train.evaluation.samples import Sampling
from ti_train.host import SampleRequest

SUBJECTS = [Subject("toy", "toy"), Subject("my-toy", {ENCODER: torch.zeros(1, WIDTH)})]
SAMPLING = Sampling(side=32, number=2, steps=2, first_seed=5)


def test_every_prompt_is_sampled_with_every_subject_and_the_same_seeds():
    compared = list(compare(TinyHost(), SUBJECTS, ["a *", "a red *"], SAMPLING))
    assert [(one.prompt, one.label, one.seed) for one in compared] == [
        (prompt, label, seed)
        for prompt in ("a *", "a red *")
        for label in ('initial text "toy"', "my-toy")
        for seed in (5, 6)
    ]


def test_the_images_are_those_of_the_host():
    host, subject = TinyHost(), SUBJECTS[1]
    (one,) = compare(host, [subject], ["a *"], Sampling(side=32, number=1, steps=2, first_seed=5), "a dog")
    request = SampleRequest((subject.prompt("a *"),), (5,), 32, 32, 2, 5.0, ("a dog",))
    assert one.image.tobytes() == host.sample(request, subject.embeddings)[0].tobytes()


def test_the_sheet_has_a_row_for_each_subject_below_the_heading_of_its_prompt():
    compared = list(compare(TinyHost(), SUBJECTS, ["a *", "a red *"], SAMPLING))
    sheet = comparison_sheet(compared, "two prompts", 64)
    assert sheet.height == 46 + 4 * (64 + 10 + 18) + 2 * 30 + 10
    assert sheet.width == 190 + 2 * (64 + 10) + 10
    first = sheet.crop((190, 46 + 30, 190 + 64, 46 + 30 + 64))
    assert first.tobytes() == compared[0].image.resize((64, 64), 1).tobytes()
