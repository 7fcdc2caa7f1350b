"""The loop as a whole, on a small real model: events, saving, interruptions, and what it must never touch."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_host import ENCODER, WIDTH, TinyHost, at_forward, dataset_of, not_a_number, raising

from ti_train.errors import UserError
from ti_train.events import Checkpoint, Done, Preview, Step, Warning
from ti_train.formats import config_of, load_embedding
from ti_train.host import Sampling, Slot, Vocabulary
from ti_train.prompts import Templates
from ti_train.seeds import seed_from
from ti_train.training.checkpoint import header_of
from ti_train.training.loop import train
from ti_train.training.micro_batches import antithetic, draw_latents
from ti_train.training.objective import add_noise, denoising_loss, target
from ti_train.training.steps import CLIP_SPREAD, unit_of
from ti_train.training.timesteps import NoiseLevels, positions
from ti_train.training.validation import SIZE


def on_disk(folder: Path) -> torch.Tensor:
    return load_embedding(folder / "my-toy.safetensors").vectors["emb_params"]


def learnt(host, dataset, config, folder: Path, resume: bool = False) -> torch.Tensor:
    """Runs to the end, or to whatever ends it."""
    for _ in train(host, dataset, config, folder, resume):
        pass
    return on_disk(folder)


def of(kind, events) -> list:
    return [event for event in events if isinstance(event, kind)]


def weights_of(host) -> str:
    digest = hashlib.sha256()
    for tensor in chain.from_iterable(module.state_dict().values() for module in host.modules):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def flags_of(host) -> list:
    parameters = chain.from_iterable(module.parameters() for module in host.modules)
    modes = [part.training for module in host.modules for part in module.modules()]
    return [(p.requires_grad, p.grad is None) for p in parameters] + modes


def stopped_after(step: int, host, dataset, config, folder: Path, resume: bool = False) -> None:
    """The host's own way to interrupt: it stops asking for events."""
    with closing(train(host, dataset, config, folder, resume)) as events:
        for event in events:
            if isinstance(event, Step) and event.step == step:
                return


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


# --- Interrupted and resumed ----------------------------------------------------

RUNS = {
    "plain": {},
    "several vectors, no clip": {"num_vectors": 2, "gradient_clip": 0},
    "flip": {"flip": True},
    "accumulation": {"batch_size": 1, "accumulation": 2},
    "warm-up": {"warmup": 3},
    "schedule": {"learning_rate": "1e-2:3, 1e-3"},
    "previews": {"preview_every": 2, "checkpoint_every": 2},
    "sphere": {"optimizer": "sphere", "pull": 0.2, "num_vectors": 2, "per_image_words": 0.5, "average": 0.6},
    "pulled and averaged": {"pull": 0.3, "average": 1.0},
    "noise levels": {"weighting": "sigma", "timesteps": "200-899 .1"},
}


@pytest.fixture(params=RUNS)
def run(request, host, pictures, settings):
    """A dataset with a posterior to draw from, and a configuration of six steps."""
    config = settings(**RUNS[request.param])
    return host, dataset_of(host, pictures, config.flip), config


@pytest.mark.parametrize("step", [3, 6])
def test_stopped_by_the_host_and_resumed_equals_uninterrupted(run, tmp_path, step):
    expected = learnt(*run, tmp_path / "whole")
    stopped_after(step, *run, tmp_path / "parts")
    assert torch.equal(learnt(*run, tmp_path / "parts", resume=True), expected)


def forwards_before(step: int, config) -> int:
    return (step - 1) * config.accumulation


@pytest.mark.parametrize(
    ("step", "error"), [(2, KeyboardInterrupt()), (4, RuntimeError("CUDA out of memory")), (6, KeyboardInterrupt())]
)
def test_interrupted_within_a_step_and_resumed_equals_uninterrupted(run, tmp_path, step, error):
    host, _, config = run
    expected = learnt(*run, tmp_path / "whole")
    number = forwards_before(step, config) + config.accumulation  # in the last of its passes
    with at_forward(host.denoiser, [number], raising(error)), pytest.raises(type(error)):
        learnt(*run, tmp_path / "parts")
    stopped_after(step - 1, *run, tmp_path / "stopped")
    assert torch.equal(on_disk(tmp_path / "parts"), on_disk(tmp_path / "stopped")), "the last completed step's"
    assert torch.equal(learnt(*run, tmp_path / "parts", resume=True), expected)


def test_a_run_may_be_interrupted_again_and_again(run, tmp_path):
    expected = learnt(*run, tmp_path / "whole")
    stopped_after(2, *run, tmp_path / "parts")
    for step in (3, 5):
        stopped_after(step, *run, tmp_path / "parts", resume=True)
    assert torch.equal(learnt(*run, tmp_path / "parts", resume=True), expected)


def test_a_resumed_run_goes_on_counting_steps_and_seconds(host, dataset, settings, tmp_path):
    with closing(train(host, dataset, settings(), tmp_path)) as events:
        *_, last = islice(events, 4)
    after = of(Step, train(host, dataset, settings(), tmp_path, resume=True))
    assert (last.step, [step.step for step in after]) == (3, [4, 5, 6])
    assert last.seconds < after[0].seconds < after[-1].seconds


@pytest.mark.parametrize("number", [5, 6, 7])
def test_a_run_cut_short_while_it_measures_has_told_every_step_it_keeps(host, dataset, settings, tmp_path, number):
    """Whoever logs the steps of both parts has each of them once."""
    told: list[int] = []

    @contextmanager
    def interrupted_measure():
        count = 0

        def hook(*_):
            nonlocal count
            count += not torch.is_grad_enabled()
            if count == number and not torch.is_grad_enabled():
                raise KeyboardInterrupt

        handle = host.denoiser.register_forward_hook(hook)
        yield
        handle.remove()

    config = settings(batch_size=SIZE, evaluate_every=1)  # so that a measurement is one forward pass
    with interrupted_measure(), suppress(KeyboardInterrupt):
        for event in train(host, dataset, config, tmp_path):
            told += [event.step] if isinstance(event, Step) else []
    assert len(told) < 7
    told += [step.step for step in of(Step, train(host, dataset, config, tmp_path, resume=True))]
    assert told == [0, 1, 2, 3, 4, 5, 6]


def test_a_host_that_stops_at_a_warning_has_been_told_every_step_it_keeps(host, dataset, settings, tmp_path):
    told: list[int] = []
    with at_forward(host.denoiser, [3], not_a_number), closing(train(host, dataset, settings(), tmp_path)) as events:
        for event in events:
            told += [event.step] if isinstance(event, Step) else []
            if isinstance(event, Warning):
                break
    told += [step.step for step in of(Step, train(host, dataset, settings(), tmp_path, resume=True))]
    assert told == [0, 1, 2, 3, 4, 5, 6]


def test_a_power_cut_loses_what_came_after_the_last_checkpoint(host, dataset, settings, tmp_path):
    """Nothing runs after it: the files are as they are when the event arrives."""
    config = settings(checkpoint_every=2)
    expected = learnt(host, dataset, config, tmp_path / "whole")
    for event in train(host, dataset, config, tmp_path / "cut"):
        if isinstance(event, Checkpoint) and event.step == 4:
            saved = {path.name: path.read_bytes() for path in (tmp_path / "cut").iterdir()}
            assert event.path.is_file()
    for name, content in saved.items():
        (tmp_path / "cut" / name).write_bytes(content)
    assert torch.equal(learnt(host, dataset, config, tmp_path / "cut", resume=True), expected)


def test_resuming_may_change_what_does_not_shape_the_word(host, dataset, settings, tmp_path):
    expected = learnt(host, dataset, settings(batch_size=4), tmp_path / "whole")
    stopped_after(3, host, dataset, settings(batch_size=4), tmp_path / "parts")
    other = settings(batch_size=1, accumulation=4, checkpoint_every=1, evaluate_every=5)
    assert torch.allclose(learnt(host, dataset, other, tmp_path / "parts", resume=True), expected, atol=1e-4)


def test_a_run_that_writes_over_the_file_it_started_from_still_knows_its_start(host, dataset, settings, tmp_path):
    learnt(host, dataset, settings(), tmp_path)
    config = settings(init=str(tmp_path / "my-toy.safetensors"), seed=1, learning_rate=0.1)
    first = load_embedding(tmp_path / "my-toy.safetensors").vectors["emb_params"]
    stopped_after(3, host, dataset, config, tmp_path)
    learnt(host, dataset, config, tmp_path, resume=True)
    word = load_embedding(tmp_path / "my-toy.safetensors")
    cosine = float(torch.cosine_similarity(first, word.vectors["emb_params"]).mean())
    assert word.provenance["cosine_to_init"] == f"{cosine:.4f}"
    assert cosine < 0.99


def test_a_state_of_a_version_that_measured_other_losses_is_resumed_without_them(host, dataset, settings, tmp_path):
    whole = learnt(host, dataset, settings(), tmp_path / "whole")
    stopped_after(3, host, dataset, settings(), tmp_path)
    state = tmp_path / "my-toy.resume"
    header = header_of(state)
    del header["measured"]
    header["course"] = '{"untrained": 0.1, "recent": [0.1], "latest": null, "best": null}'
    save_file(load_file(state), state, header)
    *_, done = train(host, dataset, settings(), tmp_path, resume=True)
    assert torch.equal(on_disk(tmp_path), whole)
    assert done.improved is None


def test_resuming_without_a_state_is_refused(host, dataset, settings, tmp_path):
    with pytest.raises(UserError, match="Nothing to resume"):
        learnt(host, dataset, settings(), tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_resuming_another_run_is_refused_and_leaves_its_files(host, dataset, settings, pictures, tmp_path):
    stopped_after(3, host, dataset, settings(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    flipped = dataset_of(host, pictures, flip=True)
    (tmp_path.parent / "lines.txt").write_text("a photo of a [name]", encoding="utf-8")
    for other, message in [
        ((host, dataset, settings(seed=1)), "seed was 0, now 1"),
        ((host, dataset, settings(steps=7)), "steps was 6, now 7"),
        ((host, dataset, settings(templates=str(tmp_path.parent / "lines.txt"))), "the templates have changed"),
        ((TinyHost("v"), dataset, settings()), "prediction was 'eps', now 'v'"),
        ((TinyHost(seed=1), dataset, settings()), "another model is loaded"),
        ((host, flipped, settings()), "the images are not the same"),
    ]:
        with pytest.raises(UserError, match=message):
            learnt(*other, tmp_path, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- Nothing good is overwritten by something worse -----------------------------


@pytest.fixture
def earlier(host, dataset, settings, tmp_path) -> bytes:
    """A finished embedding of the name, in tmp_path."""
    learnt(host, dataset, settings(seed=1), tmp_path)
    return (tmp_path / "my-toy.safetensors").read_bytes()


def left_by(error: BaseException, forward: int, host, dataset, config, folder: Path) -> dict[str, bytes]:
    """The files of a folder in which a run is ended by an error in one of its forwards."""
    with at_forward(host.denoiser, [forward], raising(error)), suppress(type(error)):
        learnt(host, dataset, config, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("forward", [2, 4, 6])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")], ids=["interrupt", "crash"])
def test_a_run_that_does_not_complete_leaves_the_earlier_embedding_as_it_was(
    host, dataset, settings, tmp_path, earlier, forward, error
):
    left = left_by(error, forward, host, dataset, settings(checkpoint_every=2), tmp_path)
    assert left["my-toy.safetensors"] == earlier
    expected = learnt(host, dataset, settings(), tmp_path / "whole")
    assert torch.equal(learnt(host, dataset, settings(), tmp_path, resume=True), expected), "and can be continued"


def test_an_untrained_embedding_never_has_the_name(host, dataset, settings, tmp_path):
    for event in train(host, dataset, settings(), tmp_path / "a"):
        assert isinstance(event, Done) or not (tmp_path / "a" / "my-toy.safetensors").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.cuda.OutOfMemoryError(), UserError("no")])
def test_a_run_that_ends_before_its_first_step_leaves_nothing(host, dataset, settings, tmp_path, error):
    assert left_by(error, 1, host, dataset, settings(), tmp_path) == {}


def test_one_that_is_worse_than_its_start_takes_its_place_only_if_nothing_is_there(host, dataset, settings, tmp_path):
    """It goes on from a good embedding, at a rate that destroys it."""
    learnt(host, dataset, settings(steps=40, learning_rate=0.1), tmp_path / "good")
    good = str(tmp_path / "good" / "my-toy.safetensors")
    worse = settings(init=good, learning_rate=50.0, schedule="constant", evaluate_every=1)
    assert left_by(KeyboardInterrupt(), 4, host, dataset, worse, tmp_path / "fresh").keys() == {"my-toy.resume"}
    *_, warning, done = train(host, dataset, worse, tmp_path / "fresh", resume=True)
    assert (done.improved, done.path) == (False, tmp_path / "fresh" / "my-toy.safetensors")
    assert warning.message.startswith("The embedding is not better than its initial vectors: Step 6 is kept")

    learnt(host, dataset, settings(), tmp_path)
    earlier = (tmp_path / "my-toy.safetensors").read_bytes()
    *_, warning, done = train(host, dataset, worse, tmp_path)
    assert done.path == tmp_path / "my-toy-worse.safetensors"
    assert "The earlier 'my-toy.safetensors' stays; this one is 'my-toy-worse.safetensors'." in warning.message
    assert (tmp_path / "my-toy.safetensors").read_bytes() == earlier


def test_the_state_of_an_interrupted_run_is_not_replaced_by_one_that_has_not_trained(host, dataset, settings, tmp_path):
    stopped_after(3, host, dataset, settings(), tmp_path)
    state = (tmp_path / "my-toy.resume").read_bytes()
    assert left_by(KeyboardInterrupt(), 1, host, dataset, settings(seed=1), tmp_path)["my-toy.resume"] == state


def test_a_checkpoint_is_due_by_time_as_well(host, dataset, settings, tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 20))  # a step takes twenty seconds
    monkeypatch.setattr("ti_train.training.loop.monotonic", lambda: next(clock))
    saved = of(Checkpoint, train(host, dataset, settings(checkpoint_seconds=30), tmp_path))
    assert [event.step for event in saved] == [2, 4]
    assert of(Checkpoint, train(host, dataset, settings(checkpoint_seconds=0), tmp_path)) == []


def test_a_second_run_of_the_name_is_refused_and_the_first_goes_on(host, dataset, settings, tmp_path):
    expected = learnt(host, dataset, settings(), tmp_path / "alone")
    first = train(host, dataset, settings(), tmp_path / "both")
    next(first)
    for second in (settings(seed=1), settings()):
        with pytest.raises(UserError, match="'my-toy' is being trained by another run"):
            next(train(host, dataset, second, tmp_path / "both"))
    list(first)
    assert torch.equal(on_disk(tmp_path / "both"), expected)
    assert [path.name for path in (tmp_path / "both").iterdir()] == ["my-toy.safetensors"]


@pytest.mark.parametrize("last", [3, 7], ids=["interrupted", "complete"])
def test_a_run_of_a_new_name_replaces_nothing_that_came_while_its_images_were_read(
    host, dataset, settings, tmp_path, last
):
    """Another program's run, or an embedding that was saved: whoever asked for this one has seen a free name."""
    stopped_after(last, host, dataset, settings(seed=1), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"my-toy' was free when .* Choose another name"):
        list(train(host, dataset, settings(), tmp_path, replaces=False))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    list(train(host, dataset, settings(), tmp_path))


def test_numbered_copies_are_the_embedding_after_those_steps(host, dataset, settings, tmp_path):
    config = settings(copy_every=2)
    stopped_after(5, host, dataset, config, tmp_path)
    learnt(host, dataset, config, tmp_path, resume=True)
    copies = tmp_path / "my-toy-steps"
    assert sorted(path.name for path in copies.iterdir()) == [f"my-toy-00000{i}.safetensors" for i in (2, 4, 6)]
    stopped_after(4, host, dataset, settings(), tmp_path / "short")
    four = load_embedding(copies / "my-toy-000004.safetensors")
    assert (four.num_vectors, four.provenance["step"]) == (1, "4")
    assert torch.equal(four.vectors["emb_params"], on_disk(tmp_path / "short"))


def test_copies_of_two_runs_are_not_mixed(host, dataset, settings, tmp_path):
    for seed in range(3):
        learnt(host, dataset, settings(copy_every=3, seed=seed), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "my-toy-steps", "my-toy-steps-2", "my-toy-steps-3"
    ]  # fmt: skip


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


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_file_in_the_folders_place_is_told_before_the_first_step(host, dataset, settings, tmp_path, inside):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"is not writable .*Choose another folder"):
        next(train(host, dataset, settings(), tmp_path / "out" / inside))


@pytest.fixture
def full_disk(monkeypatch):
    """A folder into which nothing can be put any more once full() was called."""

    def full(folder: Path) -> None:
        replace = os.replace

        def refuse(source, target):
            if Path(target).parent == folder:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        monkeypatch.setattr(os, "replace", refuse)

    return full


def test_a_disk_that_is_full_is_told_before_the_first_step(host, dataset, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(UserError, match=r"is not writable .No space left.*Choose another folder, or free disk space"):
        next(train(host, dataset, settings(), tmp_path))


@pytest.mark.parametrize(("when", "kept"), [(0, 2), (3, 4), (5, 6)])
def test_a_disk_that_fills_up_loses_nothing(host, dataset, settings, tmp_path, monkeypatch, full_disk, when, kept):
    """At the next checkpoint, or at the end, the run is saved elsewhere; copied back, it goes on."""
    config, refuge = settings(checkpoint_every=2), tmp_path / "refuge"
    refuge.mkdir()
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(refuge))
    expected = learnt(host, dataset, config, tmp_path / "whole")

    def run_until_full():
        for event in train(host, dataset, config, tmp_path / "full"):
            if isinstance(event, Step) and event.step == when:
                full_disk(tmp_path / "full")

    with pytest.raises(UserError, match=f"No space left.* Step {kept} was saved to '{re.escape(str(refuge))}'"):
        run_until_full()
    assert torch.equal(learnt(host, dataset, config, refuge, resume=True), expected)


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
