"""The loop as a whole, on a small real model: its events, what is trained, and what it must never touch."""

from __future__ import annotations

import json
import re

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_host import ENCODER, TinyHost, at_forward, dataset_of, raising
from whole_runs import flags_of, learnt, of, on_disk, stopped_after, weights_of

from ti_train.events import Done, Preview, Step, Warning
from ti_train.formats import config_of, load_embedding
from ti_train.host import Sampling, Slot, Vocabulary
from ti_train.prompts import Templates
from ti_train.seeds import seed_from
from ti_train.training.loop import train
from ti_train.training.micro_batches import antithetic, draw_latents
from ti_train.training.objective import add_noise, denoising_loss, target
from ti_train.training.steps import CLIP_SPREAD, unit_of
from ti_train.training.timesteps import NoiseLevels, positions

# --- Events ---------------------------------------------------------------------


def test_events_come_in_this_order(host, dataset, settings, tmp_path):
    config = settings(steps=4, checkpoint_every=2, preview_every=2, evaluate_every=3)
    events = list(train(host, dataset, config, tmp_path))
    kinds = [type(event).__name__ + str(getattr(event, "step", "")) for event in events]
    assert kinds == [
        "Step0", "Preview0", "Step1", "Step2", "Preview2", "Checkpoint2", "Step3", "Step4", "Preview4", "Done"
    ]  # fmt: skip


def test_the_noise_free_loss_is_measured_when_it_is_due_and_after_the_last_step(host, dataset, settings, tmp_path):
    steps = of(Step, train(host, dataset, settings(steps=5, evaluate_every=2), tmp_path))
    assert [step.step for step in steps if step.validation_loss is not None] == [0, 2, 4, 5]
    assert [step.loss is None for step in steps] == [True] + [False] * 5


def test_step_0_is_the_untrained_word(host, dataset, settings, tmp_path):
    first = next(train(host, dataset, settings(), tmp_path))
    norm = host.vocabulary(ENCODER).rows("toy").norm()
    assert (first.step, first.learning_rate, first.seconds) == (0, 0.0, 0.0)
    assert first.cosine == pytest.approx(1)
    assert first.norm == pytest.approx(norm.item())


def test_a_step_tells_its_rate_and_how_far_the_word_has_moved(host, dataset, settings, tmp_path):
    config = settings(schedule="constant", learning_rate=0.02)
    *_, last = of(Step, train(host, dataset, config, tmp_path))
    start, end = host.vocabulary(ENCODER).rows("toy"), on_disk(tmp_path)
    assert last.learning_rate == 0.02
    assert last.norm == pytest.approx(end.norm().item())
    assert last.cosine == pytest.approx(torch.cosine_similarity(start, end).item(), abs=1e-6)
    assert last.seconds > 0


def test_a_preview_is_the_hosts_picture_of_the_word_as_it_is(host, dataset, settings, tmp_path):
    config = settings(preview_every=6, preview_prompts=("a photo of *", "<my-toy> and a dog"))
    previews = of(Preview, train(host, dataset, config, tmp_path))
    assert [(p.step, p.prompt) for p in previews] == [(s, p) for s in (0, 6) for p in config.preview_prompts]
    assert all(isinstance(p.image, Image.Image) and p.image.size == (32, 32) for p in previews)
    assert len({p.image.tobytes() for p in previews}) == 4


def test_previews_are_sampled_as_suits_the_model_unless_the_user_chooses(
    host, dataset, settings, tmp_path, monkeypatch
):
    asked, sample = [], host.sample
    monkeypatch.setattr(
        host, "sample", lambda request, embeddings: asked.append(request) or sample(request, embeddings)
    )
    monkeypatch.setattr(host, "sampling", Sampling(4, 1.0, "lcm", "simple"))
    for more in ({}, {"preview_steps": 3, "preview_cfg": 2.0, "preview_sampler": "euler", "preview_scheduler": "beta"}):
        of(Preview, train(host, dataset, settings(steps=1, preview_every=1, **more), tmp_path))
    chosen = [(r.steps, r.guidance, r.sampler, r.scheduler) for r in asked]
    assert chosen == 2 * [(4, 1.0, "lcm", "simple")] + 2 * [(3, 2.0, "euler", "beta")]


def test_what_a_host_remarks_is_a_warning(host, dataset, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "remarks", ("This family was never tried.",))
    (warning, *_) = of(Warning, train(host, dataset, settings(steps=1), tmp_path))
    assert warning.message == "This family was never tried."


def test_an_encoder_of_a_wide_table_moves_in_units_of_it(host):
    """At the same rate a coordinate of T5's moves by the share of its spread by which one of CLIP's does."""
    table = 10 * torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    wide = Vocabulary(table, list, str)
    assert unit_of("t5xxl", wide) == pytest.approx(10 / CLIP_SPREAD, rel=0.03)
    assert unit_of("clip_l", wide) == 1


@pytest.mark.parametrize("other", [{"preview_negative": "a dog"}, {"preview_seed": 7}])
def test_a_preview_has_a_negative_prompt_and_a_seed_of_its_own(host, dataset, settings, tmp_path, other):
    first, second = (
        of(Preview, train(host, dataset, settings(steps=1, preview_every=1, **given), tmp_path))[-1].image.tobytes()
        for given in ({}, other)
    )
    assert first != second


@pytest.mark.parametrize(
    ("given", "remark"),
    [
        ({"name": "dog"}, "'dog' is a word of the model's vocabulary .*replaces in every prompt.*such as my-dog"),
        ({"init": "red toy"}, r"'red toy' is 2 tokens of this model \('red', 'toy'\): 2 vectors\."),
        ({"init": "red toy", "num_vectors": 1}, "condensed into 1 vector"),
        ({"num_vectors": 2}, "repeated in 2 vectors"),
    ],
)
def test_what_the_user_should_know_comes_first(host, dataset, settings, tmp_path, given, remark):
    first = next(train(host, dataset, settings(**given), tmp_path))
    assert isinstance(first, Warning)
    assert re.search(remark, first.message)


def test_a_word_that_fits_needs_no_remark(host, dataset, settings, tmp_path):
    assert of(Warning, train(host, dataset, settings(), tmp_path)) == []


# --- What is learnt -------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_the_noise_free_loss_falls(pictures, settings, tmp_path, prediction):
    host = TinyHost(prediction)
    config = settings(steps=60, batch_size=4, learning_rate=0.05, evaluate_every=60, num_vectors=2)
    steps = of(Step, train(host, dataset_of(host, pictures), config, tmp_path))
    assert steps[-1].validation_loss < 0.9 * steps[0].validation_loss


def test_rate_zero_leaves_the_vectors_as_they_were(host, dataset, settings, tmp_path):
    end = learnt(host, dataset, settings(learning_rate=0), tmp_path)
    assert torch.equal(end, host.vocabulary(ENCODER).rows("toy"))


def test_adams_first_step_moves_every_coordinate_by_the_rate(host, dataset, settings, tmp_path):
    end = learnt(host, dataset, settings(steps=1, learning_rate=0.01, pull=0), tmp_path)
    moved = (end - host.vocabulary(ENCODER).rows("toy")).abs()
    assert torch.allclose(moved, torch.full_like(moved, 0.01), rtol=0.01)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_gradient_of_a_step_is_that_of_the_mean_loss_of_its_pictures(
    host, dataset, settings, tmp_path, accumulation
):
    """The first step done by hand; Adam's first moment is then a tenth of the gradient."""
    config = settings(batch_size=4 // accumulation, accumulation=accumulation, gradient_clip=0)
    stopped_after(1, host, dataset, config, tmp_path)
    generator = torch.Generator().manual_seed(seed_from("step", 0, 1))
    x0 = torch.stack(draw_latents(dataset.take(0, 4, 0), generator))
    noise = torch.randn(x0.shape, generator=generator)
    sigma = NoiseLevels.of("uniform", host.sigmas, "eps").at(positions(dataset, 1, 4, 0))
    noise = torch.stack(antithetic(noise.unbind(), sigma))
    prompts = [Templates.load("object").draw("", generator) for _ in x0]
    vectors = host.vocabulary(ENCODER).rows("toy").requires_grad_()
    answer = host.predict(add_noise(x0, noise, sigma, "eps"), sigma, host.encode(prompts, {"*": {ENCODER: vectors}}))
    denoising_loss(answer, target(x0, noise, sigma, "eps")).mean().backward()
    moment = load_file(tmp_path / "my-toy.resume")["optimizer.0.exp_avg"]
    assert torch.allclose(10 * moment, vectors.grad, rtol=1e-4, atol=1e-7)


def test_the_gradient_is_clipped_to_its_largest_norm(host, dataset, settings, tmp_path):
    stopped_after(1, host, dataset, settings(gradient_clip=1e-6), tmp_path)
    moment = load_file(tmp_path / "my-toy.resume")["optimizer.0.exp_avg"]
    assert (10 * moment).norm().item() == pytest.approx(1e-6, rel=0.01)


def test_four_at_once_and_twice_two_learn_the_same(host, dataset, settings, tmp_path):
    at_once = learnt(host, dataset, settings(batch_size=4), tmp_path / "a")
    in_parts = learnt(host, dataset, settings(batch_size=2, accumulation=2), tmp_path / "b")
    assert torch.allclose(at_once, in_parts, atol=1e-4)
    assert not torch.allclose(at_once, host.vocabulary(ENCODER).rows("toy"), atol=1e-3)


def test_looking_at_a_run_changes_nothing(host, dataset, settings, tmp_path):
    unseen = settings(evaluate_every=100, checkpoint_every=100)
    watched = settings(evaluate_every=1, checkpoint_every=1, preview_every=1)
    assert torch.equal(learnt(host, dataset, unseen, tmp_path / "a"), learnt(host, dataset, watched, tmp_path / "b"))


def test_the_global_random_state_has_no_influence_and_is_left_alone(host, dataset, settings, tmp_path):
    torch.manual_seed(1)
    first = learnt(host, dataset, settings(), tmp_path / "a")
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert torch.equal(learnt(host, dataset, settings(), tmp_path / "b"), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_learns_another_word(host, dataset, settings, tmp_path):
    first, second = (learnt(host, dataset, settings(seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_every_step_draws_noise_levels_of_its_own(host, dataset, settings, tmp_path):
    levels = []
    hook = host.denoiser.register_forward_hook(
        lambda _module, inputs, _output: levels.append(tuple(inputs[1].tolist())) if torch.is_grad_enabled() else None
    )
    learnt(host, dataset, settings(steps=8), tmp_path)
    hook.remove()
    assert len(set(levels)) == len(levels) == 8


def test_captions_reach_the_prompts(host, pictures, settings, tmp_path):
    with_captions = dataset_of(host, pictures, captions=True)
    plain = learnt(host, dataset_of(host, pictures), settings(templates="captions"), tmp_path / "a")
    assert not torch.equal(learnt(host, with_captions, settings(templates="captions"), tmp_path / "b"), plain)


def test_the_file_says_where_the_word_came_from(host, dataset, settings, tmp_path):
    learnt(host, dataset, settings(steps=3), tmp_path)
    word = load_embedding(tmp_path / "my-toy.safetensors")
    said = word.provenance
    assert (word.name, said["step"], said["init"], said["base_model"]) == ("my-toy", "3", "toy", "tiny-0")
    assert said["software"].startswith("ti-train ")
    assert json.loads(said["norms"])[ENCODER] == pytest.approx(on_disk(tmp_path).norm(dim=-1).tolist(), abs=1e-3)
    assert config_of(word)["steps"] == 3


def test_the_file_has_the_names_of_files_without_their_folders(host, dataset, settings, tmp_path):
    """A published embedding does not show its author's home folder."""
    list(train(host, dataset, settings(name="start"), tmp_path))
    (tmp_path / "lines.txt").write_text("a photo of a [name]")
    init, templates = f"toy | {tmp_path / 'start.safetensors'}", str(tmp_path / "lines.txt")
    previews = of(Preview, train(host, dataset, settings(init=init, templates=templates, preview_every=3), tmp_path))
    header = load_embedding(tmp_path / "my-toy.safetensors").provenance
    assert str(tmp_path) not in str([header, *(preview.embedding.provenance for preview in previews)])
    assert header["init"] in ("toy", "start.safetensors")
    assert json.loads(header["config"])["templates"] == "lines.txt"


def test_done_is_what_is_on_disk_and_leaves_no_state_behind(host, dataset, settings, tmp_path):
    *_, done = train(host, dataset, settings(), tmp_path)
    assert isinstance(done, Done)
    assert done.path == tmp_path / "my-toy.safetensors"
    assert torch.equal(done.embedding.vectors[ENCODER], on_disk(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["my-toy.safetensors"]


@pytest.mark.parametrize("optimizer", ["adamw", "sphere"])
def test_the_end_of_a_run_is_averaged(host, dataset, settings, tmp_path, optimizer):
    """Half of six steps: the file has the mean of the vectors after steps 4, 5 and 6, and so has what is measured."""
    rate = {"adamw": 0.1, "sphere": 0.02}[optimizer]  # so that the run gets better to its end
    config = settings(average=0.5, learning_rate=rate, optimizer=optimizer, evaluate_every=1)
    after = []
    for step in range(1, 7):
        stopped_after(step, host, dataset, config, tmp_path / str(step))
        after.append(load_file(tmp_path / str(step) / "my-toy.resume")[f"vectors.{ENCODER}"])
    expected = torch.stack(after[3:]).mean(dim=0)
    if optimizer == "sphere":  # each average is put back onto it
        expected = after[3]
        for number, vectors in ((2, after[4]), (3, after[5])):
            expected = expected + (vectors - expected) / number
            expected = expected * after[5].norm() / expected.norm()
    events = list(train(host, dataset, config, tmp_path / "whole"))
    assert torch.allclose(events[-1].embedding.vectors[ENCODER], expected, atol=1e-4)
    shown = [event.embedding.vectors[ENCODER] for event in of(Step, events)]
    assert torch.equal(shown[3], after[2])
    assert torch.equal(shown[6], events[-1].embedding.vectors[ENCODER])
    assert not torch.equal(shown[6], after[5])


# --- What stays as it is --------------------------------------------------------


def test_the_model_is_left_as_it_was_to_the_last_bit(host, dataset, settings, tmp_path):
    weights, flags = weights_of(host), flags_of(host)
    learnt(host, dataset, settings(preview_every=3, gradient_checkpointing=True), tmp_path)
    assert weights_of(host) == weights
    assert flags_of(host) == flags


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=["interrupt", "error"])
def test_the_model_is_left_as_it_was_by_an_error_in_mid_step(host, dataset, settings, tmp_path, error):
    weights, flags = weights_of(host), flags_of(host)
    with at_forward(host.denoiser, [3], raising(error)), pytest.raises(type(error)):
        learnt(host, dataset, settings(), tmp_path)
    assert (weights_of(host), flags_of(host)) == (weights, flags)


def test_the_model_is_left_as_it_was_when_the_host_stops_listening(host, dataset, settings, tmp_path):
    weights, flags = weights_of(host), flags_of(host)
    stopped_after(2, host, dataset, settings(), tmp_path)
    assert (weights_of(host), flags_of(host)) == (weights, flags)


def test_between_events_the_model_is_the_hosts_own(host, dataset, settings, tmp_path):
    """A host may sample, or show its weights, whenever an event arrives."""
    flags = flags_of(host)
    grad = torch.is_grad_enabled()
    for _ in train(host, dataset, settings(preview_every=2, checkpoint_every=2), tmp_path):
        assert flags_of(host) == flags
        assert torch.is_grad_enabled() == grad


def test_a_host_that_has_switched_gradients_off_can_train(host, dataset, settings, tmp_path):
    """ComfyUI and the WebUI run everything without."""
    expected = learnt(host, dataset, settings(), tmp_path / "a")
    with torch.no_grad():
        assert torch.equal(learnt(host, dataset, settings(), tmp_path / "b"), expected)


def test_a_host_may_encode_its_pictures_in_inference_mode(host, pictures, settings, tmp_path):
    expected = learnt(host, dataset_of(host, pictures), settings(), tmp_path / "a")
    with torch.inference_mode():
        dataset = dataset_of(host, pictures)
    assert torch.equal(learnt(host, dataset, settings(), tmp_path / "b"), expected)


# --- Early stop -----------------------------------------------------------------


def test_it_ends_where_the_validation_loss_has_stopped_falling_and_is_complete_then(host, dataset, settings, tmp_path):
    """At a rate of 0 the loss stays what it is: the first measurement is the lowest, and three more are no lower."""
    config = settings(steps=20, learning_rate=0.0, evaluate_every=2, early_stop=3)
    events = list(train(host, dataset, config, tmp_path))
    assert of(Step, events)[-1].step == 8
    assert events[-1].complete
    assert not (tmp_path / "my-toy.resume").exists()


def test_a_run_that_was_resumed_ends_early_at_the_same_step(host, dataset, settings, tmp_path):
    config = settings(steps=20, learning_rate=0.0, evaluate_every=2, early_stop=3)
    stopped_after(5, host, dataset, config, tmp_path)
    events = list(train(host, dataset, config, tmp_path, resume=True))
    assert of(Step, events)[-1].step == 8


# --- The boundary ---------------------------------------------------------------


@pytest.mark.parametrize("has_variance", [True, False])
def test_pictures_are_drawn_anew_from_the_posterior_where_there_is_one(pictures, settings, tmp_path, has_variance):
    host = TinyHost(has_variance=has_variance)
    dataset, config = dataset_of(host, pictures), settings()
    seen = []
    hook = host.denoiser.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[1]))
    expected = learnt(host, dataset, config, tmp_path / "whole")
    hook.remove()
    assert all(torch.isin(sigma, host.sigmas).all() for sigma in seen), "only levels that the model knows"
    stopped_after(3, host, dataset, config, tmp_path / "parts")
    assert torch.equal(learnt(host, dataset, config, tmp_path / "parts", resume=True), expected)


def test_every_prompt_of_a_step_has_the_word(host, dataset, settings, tmp_path, monkeypatch):
    asked = []
    encode = host.encode
    monkeypatch.setattr(host, "encode", lambda prompts, *rest: asked.extend(prompts) or encode(prompts, *rest))
    learnt(host, dataset, settings(), tmp_path)
    assert len(asked) > 12
    assert all(Slot("*") in prompt for prompt in asked)
