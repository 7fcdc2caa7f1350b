"""What ends a run, or a step of it, and what its user is told."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_host import ENCODER, WIDTH, TinyHost, at_forward, dataset_of, not_a_number
from whole_runs import learnt, of, on_disk, stopped_after

from ti_train.errors import UserError
from ti_train.events import Done, Preview, Step, Warning
from ti_train.formats import load_embedding
from ti_train.training.loop import train

# --- Numbers that are none ------------------------------------------------------


def test_a_step_without_a_finite_loss_is_skipped_and_told(host, dataset, settings, tmp_path):
    config, steps = settings(schedule="constant"), {}
    with at_forward(host.denoiser, [3, 4], not_a_number):
        events = list(train(host, dataset, config, tmp_path))
    messages = [warning.message for warning in of(Warning, events)]
    assert [message.partition(":")[0] for message in messages] == ["Step 3 was skipped", "Step 4 was skipped"]
    assert "(2 in a row)" in messages[1]
    steps = {step.step: step for step in of(Step, events)}
    assert steps[2].cosine == steps[3].cosine == steps[4].cosine != steps[5].cosine
    assert on_disk(tmp_path).isfinite().all()


def test_a_skipped_step_leaves_the_vectors_bit_for_bit(host, dataset, settings, tmp_path):
    stopped_after(2, host, dataset, settings(), tmp_path / "before")
    with at_forward(host.denoiser, [3], not_a_number):
        stopped_after(3, host, dataset, settings(), tmp_path / "after")
    assert torch.equal(on_disk(tmp_path / "before"), on_disk(tmp_path / "after"))


def test_ten_such_steps_in_a_row_end_the_run_with_the_last_good_vectors(host, dataset, settings, tmp_path):
    stopped_after(2, host, dataset, settings(steps=30), tmp_path / "before")
    with (
        at_forward(host.denoiser, range(3, 99), not_a_number),
        pytest.raises(UserError, match=r"not a finite number in 10 steps in a row.*Try a lower learning rate"),
    ):
        learnt(host, dataset, settings(steps=30), tmp_path / "after")
    assert torch.equal(on_disk(tmp_path / "before"), on_disk(tmp_path / "after"))


@pytest.mark.parametrize(("full", "remedy"), [(True, "Try another copy"), (False, "Try dtype float32, another copy")])
def test_a_model_that_answers_nothing_finite_is_told_at_once(host, dataset, settings, tmp_path, full, remedy):
    host.full_precision = full
    handle = host.denoiser.register_forward_hook(lambda *_: torch.full((1,), float("nan")))
    with pytest.raises(UserError, match=f"even for the untrained embedding. {remedy}"):
        learnt(host, dataset, settings(), tmp_path)
    handle.remove()
    assert list(tmp_path.iterdir()) == [], "the name is still free"


def test_nine_such_steps_and_a_good_one_start_the_count_anew(host, dataset, settings, tmp_path):
    numbers = [*range(1, 10), *range(11, 20)]
    with at_forward(host.denoiser, numbers, not_a_number):
        events = list(train(host, dataset, settings(steps=20), tmp_path))
    assert len(of(Warning, events)) == 18
    assert isinstance(events[-1], Done)


def test_a_run_resumed_after_a_skipped_step_equals_one_that_never_stopped(host, dataset, settings, tmp_path):
    """The loss scale has fallen by then, which fp16 would notice: it is saved with the run."""
    config = settings(schedule="constant")
    with at_forward(host.denoiser, [2], not_a_number):
        whole = learnt(host, dataset, config, tmp_path / "whole")
    with at_forward(host.denoiser, [2], not_a_number):
        stopped_after(3, host, dataset, config, tmp_path / "parts")
    saved = load_file(tmp_path / "parts" / "my-toy.resume")["optimizer.loss_scale"]
    assert saved == dataset.pictures[0].mean.numel() / 2
    assert torch.equal(learnt(host, dataset, config, tmp_path / "parts", resume=True), whole)


class TooNarrow(TinyHost):
    """Its gradients overflow where what enters the network is larger than a bound, as in fp16."""

    bound = 0.5

    def predict(self, noisy, sigma, cond):
        answer = super().predict(noisy, sigma, cond)
        if answer.requires_grad:
            answer.register_hook(lambda grad: torch.where(grad.abs() > self.bound, torch.inf, grad))
        return answer


def test_gradients_that_overflow_come_into_range_as_the_loss_scale_falls(pictures, settings, tmp_path):
    """A scale that stays would skip every step."""
    host = TooNarrow()
    events = list(train(host, dataset_of(host, pictures), settings(steps=12), tmp_path))
    skipped = of(Warning, events)
    assert 0 < len(skipped) < 8
    assert isinstance(events[-1], Done)
    assert not torch.equal(on_disk(tmp_path), host.vocabulary(ENCODER).rows("toy"))


# --- No gradient ----------------------------------------------------------------


class Deaf(TinyHost):
    """Its denoiser has learnt to give its text no weight."""

    def __init__(self) -> None:
        super().__init__()
        for weight in self.denoiser.value.parameters():
            weight.data.zero_()


class Detached(TinyHost):
    """Another extension runs the text encoder without gradients."""

    @torch.no_grad()
    def encode(self, prompts, words, sizes=()):
        return super().encode(prompts, words, sizes)


@pytest.mark.parametrize("kind", [Deaf, Detached])
def test_a_model_that_ignores_its_prompt_is_told_before_time_is_lost(kind, pictures, settings, tmp_path):
    host = kind()
    with pytest.raises(UserError, match=r"No gradient reached .*ignores its prompt.*SageAttention"):
        learnt(host, dataset_of(host, pictures), settings(), tmp_path)


def test_a_preview_that_does_not_fit_is_left_out_and_told(host, dataset, settings, tmp_path):
    expected = learnt(host, dataset, settings(), tmp_path / "calm")
    sample, calls = host.sample, []

    def full_once(*arguments):
        calls.append(True)
        if len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return sample(*arguments)

    host.sample = full_once
    events = list(train(host, dataset, settings(preview_every=2), tmp_path / "full"))
    assert [preview.step for preview in of(Preview, events)] == [0, 4, 6]
    (warning,) = of(Warning, events)
    assert warning.message.startswith("Step 2: The GPU ran out of memory. This preview is skipped")
    assert torch.equal(on_disk(tmp_path / "full"), expected)


# --- What cannot work -----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"init": "zebra"}, "The initial text 'zebra' has no tokens"),
        ({"init": "none.safetensors"}, "The embedding file 'none.safetensors'"),
        ({"num_vectors": 19}, "The prompt does not fit"),
        ({"templates": "none.txt"}, "The templates 'none.txt' are neither"),
    ],
)
def test_it_is_told_before_anything_is_written(host, dataset, settings, tmp_path, given, why):
    with pytest.raises(UserError, match=why):
        next(train(host, dataset, settings(**given), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_caption_with_the_word_too_far_back_is_told_before_the_first_step(host, settings, tmp_path):
    """Even where another caption is longer, but has the word in front."""
    for name, caption in {"a": "[name] " + "photo " * 40, "b": "toy " * 18 + "[name]"}.items():
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption, encoding="utf-8")
    dataset = dataset_of(host, tmp_path, captions=True)
    with pytest.raises(UserError, match="does not fit"):
        next(train(host, dataset, settings(templates="captions"), tmp_path / "out"))


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"emb_params": torch.ones(2, 24)}, f"vectors of width 24.*, but the model's text encoder needs {WIDTH}"),
        ({"emb_params": torch.ones(3, WIDTH)}, r"has 3 vector\(s\), but num_vectors is 2. Set num_vectors to 3"),
        ({"a": torch.ones(1, WIDTH), "b": torch.ones(1, WIDTH)}, "holds 2 embeddings"),
        ({"emb_params": torch.full((1, WIDTH), torch.nan)}, "NaN or infinite"),
    ],
)
def test_a_file_that_cannot_be_gone_on_from_is_refused(host, dataset, settings, tmp_path, tensors, why):
    save_file(tensors, tmp_path / "old.safetensors")
    with pytest.raises(UserError, match=why):
        next(train(host, dataset, settings(init=str(tmp_path / "old.safetensors"), num_vectors=2), tmp_path))


def test_a_run_can_start_from_a_learnt_word(host, dataset, settings, tmp_path):
    first = learnt(host, dataset, settings(num_vectors=2), tmp_path)
    going_on = settings(name="next", init=str(tmp_path / "my-toy.safetensors"), num_vectors=2, learning_rate=0)
    learnt(host, dataset, going_on, tmp_path)
    assert torch.equal(load_embedding(tmp_path / "next.safetensors").vectors["emb_params"], first)
