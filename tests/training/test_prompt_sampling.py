"""Captions in a run: what reaches the prompts, what is told, and what is checked before the first step."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
from PIL import Image
from tiny_host import dataset_of

from ti_train.errors import UserError
from ti_train.events import Step, Warning
from ti_train.formats import load_embedding
from ti_train.host import Slot
from ti_train.prompts import text_of
from ti_train.training.loop import train


@pytest.fixture
def captioned(host, tmp_path):
    """A dataset of one picture for each caption."""

    def captioned(*captions: str):
        folder = tmp_path / "pictures"
        folder.mkdir()
        for i, caption in enumerate(captions):
            Image.new("RGB", (32, 32), (30 * i, 0, 0)).save(folder / f"{i}.png")
            (folder / f"{i}.txt").write_text(caption, encoding="utf-8")
        return dataset_of(host, folder, captions=True)

    return captioned


@pytest.fixture
def asked(host, monkeypatch):
    """Every prompt of a step, as people read it; under False those of the noise-free loss."""
    texts, encode = {True: [], False: []}, host.encode

    def listening(prompts, *rest):
        texts[torch.is_grad_enabled()].extend(map(text_of, prompts))
        assert all(Slot("*") in prompt for prompt in prompts)
        return encode(prompts, *rest)

    monkeypatch.setattr(host, "encode", listening)
    return texts


def told(events) -> list[str]:
    return [event.message for event in events if isinstance(event, Warning)]


def test_tags_come_in_every_order_and_with_gaps_and_the_noise_free_loss_sees_them_whole(
    host, captioned, settings, asked, tmp_path
):
    config = settings(templates="captions", steps=30, shuffle_tags=True, drop_tags=0.3, keep_tags=1)
    told(train(host, captioned("toy, red, blue"), config, tmp_path))
    assert set(asked[True]) == {
        f"a photo of a *, toy{rest}" for rest in ("", ", red", ", blue", ", red, blue", ", blue, red")
    }
    assert set(asked[False]) == {"a photo of a *, toy, red, blue"}


def test_a_stopped_run_with_varied_tags_resumes_to_the_same_word(host, captioned, settings, tmp_path):
    config = settings(templates="captions", shuffle_tags=True, drop_tags=0.5)
    dataset = captioned("toy, red, blue", "dog, blue, cat")
    for _ in train(host, dataset, config, tmp_path / "whole"):
        pass
    with closing(train(host, dataset, config, tmp_path / "parts")) as events:
        next(event for event in events if isinstance(event, Step) and event.step == 3)
    for _ in train(host, dataset, config, tmp_path / "parts", resume=True):
        pass
    whole, parts = (
        load_embedding(tmp_path / p / "my-toy.safetensors").vectors["emb_params"] for p in ("whole", "parts")
    )
    assert torch.equal(whole, parts)


def test_a_word_that_shuffling_may_push_too_far_back_is_told_before_the_first_step(host, captioned, settings, tmp_path):
    dataset = captioned("[name], " + "red toy, " * 8)
    next(train(host, dataset, settings(templates="captions"), tmp_path / "out"))
    with pytest.raises(UserError, match="does not fit"):
        next(train(host, dataset, settings(templates="captions", shuffle_tags=True), tmp_path / "out"))


@pytest.fixture
def captions_alone(tmp_path) -> str:
    (tmp_path / "lines.txt").write_text("[filewords]", encoding="utf-8")
    return str(tmp_path / "lines.txt")


def test_a_picture_without_the_word_is_named_and_left_out(host, captioned, settings, asked, captions_alone, tmp_path):
    dataset = captioned("a red toy", "a blue [name]", "a dog")
    warnings = told(train(host, dataset, settings(templates=captions_alone), tmp_path))
    assert warnings == [
        "Ignored: 0.png, 2.png. Neither caption nor template contains [name], which stands for the embedding."
    ]
    assert set(asked[True] + asked[False]) == {"a blue *"}


def test_of_many_pictures_only_the_first_are_named(host, captioned, settings, captions_alone, tmp_path):
    dataset = captioned(*(f"toy {i}" for i in range(7)), "[name]")
    (warning,) = told(train(host, dataset, settings(templates=captions_alone, steps=1), tmp_path))
    assert warning.startswith("Ignored: 0.png, 1.png, 2.png, 3.png, 4.png and 2 more.")


def test_captions_of_which_none_has_the_word_are_refused(host, captioned, settings, captions_alone, tmp_path):
    with pytest.raises(
        UserError, match=r"None of the images can be used: neither caption nor template contains \[name\]"
    ):
        next(train(host, captioned("a toy"), settings(templates=captions_alone), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_caption_that_calls_the_word_by_its_name_is_told(host, captioned, settings, tmp_path):
    """Other trainers' captions do so; here it would be learnt as part of the sentence."""
    dataset = captioned("My-Toy on a table", "a [name], which is my-toy", "a toy")
    messages = told(train(host, dataset, settings(templates="captions", steps=1), tmp_path))
    assert [message for message in messages if "caption" in message] == [
        "The caption of 0.png contains 'my-toy', which the model reads as ordinary text. "
        "Write [name] for the embedding."
    ]


def test_a_caption_beyond_the_encoders_limit_is_told_once_with_what_is_cut(host, captioned, settings, tmp_path):
    config = settings(templates="captions", steps=1)
    messages = told(train(host, captioned("red " * 30, "toy", "blue " * 40), config, tmp_path))
    (message,) = [m for m in messages if "tokens" in m]
    assert message.startswith("The longest prompt for 0.png has 36 tokens, and the text encoder reads 18: 'red red")
    assert message.endswith("Shorten it. So are those of 2.png.")


def test_a_caption_is_measured_in_tokens_not_letters(host, captioned, settings, tmp_path, monkeypatch):
    """Chinese has few letters for its tokens: its caption is the one to check."""
    monkeypatch.setattr(host, "tokenize", lambda text: [0] * (len(text) if text.startswith("猫") else 1))
    dataset = captioned("a long English caption of few tokens [name]", "猫" * 19 + "[name]")
    with pytest.raises(UserError, match="The prompt does not fit"):
        list(train(host, dataset, settings(templates="captions"), tmp_path))


def test_what_of_a_preview_prompt_is_not_used_is_told(host, captioned, settings, tmp_path):
    prompts = ("a photo", "a * with <my-toi>", "a * " + "red " * 30, "a <my-toy>")
    config = settings(name="my-toy", steps=1, preview_every=1, preview_prompts=prompts, preview_negative="<my-toyy>")
    messages = told(train(host, captioned("toy"), config, tmp_path))
    assert [message.partition(". ")[0] for message in messages if "prompt" in message] == [
        "The preview prompt 'a photo' does not show the embedding",
        "<my-toi> in the preview prompt 'a * with <my-toi>' is read as plain text: there is no such embedding",
        "The preview prompt 'a * " + "red " * 30 + "' has 32 tokens, and the text encoder reads 18: '"
        + ("red " * 14).strip() + "' is cut off",
        "<my-toyy> in the negative prompt of the previews is read as plain text: there is no such embedding",
    ]  # fmt: skip
