"""A run that is interrupted and resumed equals an uninterrupted one, bit for bit."""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_host import TinyHost, at_forward, dataset_of, not_a_number, raising
from whole_runs import learnt, of, on_disk, stopped_after

from ti_train.errors import BusyError, UserError
from ti_train.events import Checkpoint, Step, Warning
from ti_train.formats import load_embedding
from ti_train.training.checkpoint import header_of
from ti_train.training.loop import train
from ti_train.training.unused import unused_options
from ti_train.training.validation import SIZE

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


def test_a_run_that_another_one_finished_while_it_prepared_overwrites_nothing(
    host, dataset, settings, tmp_path, monkeypatch
):
    config = settings(checkpoint_every=1)
    stopped_after(3, host, dataset, config, tmp_path)

    def meanwhile(*given):
        monkeypatch.undo()
        learnt(host, dataset, config, tmp_path, resume=True)
        return unused_options(*given)

    monkeypatch.setattr("ti_train.training.loop.unused_options", meanwhile)
    with pytest.raises(BusyError, match=r"prepared to continue it from step 3\. That run's files are unchanged"):
        learnt(host, dataset, config, tmp_path, resume=True)
    assert load_embedding(tmp_path / "my-toy.safetensors").provenance["step"] == "6"
    assert not (tmp_path / "my-toy.resume").exists()


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
