"""What a run leaves on the disk: nothing good is overwritten by something worse."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tiny_host import at_forward, raising
from whole_runs import learnt, of, on_disk, stopped_after

from ti_train.errors import UserError
from ti_train.events import Checkpoint, Done, Step
from ti_train.formats import load_embedding
from ti_train.training.loop import train

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


# --- Disks ------


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
