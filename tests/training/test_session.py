"""A session: what it records, what it keeps, and that it leaves the run as train() makes it."""

from __future__ import annotations

import errno
import os
import re
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_host import ENCODER, at_forward, raising

from ti_train.errors import UserError
from ti_train.events import Done, Preview, Step
from ti_train.formats import load_embedding
from ti_train.training.loop import train
from ti_train.training.session import Records, Session, load_dataset
from ti_train.training.step_log import read_steps

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def rising(settings):
    """A run whose validation loss rises in the end: its best step is not its last."""
    return settings(steps=8, evaluate_every=1, learning_rate=2.0, schedule="constant")


def vectors(file: Path) -> torch.Tensor:
    return load_embedding(file).vectors["emb_params"]


def leave_after(session: Session, host, dataset, step: int, resume: bool = False) -> None:
    with closing(session.train(host, dataset, resume)) as events:
        next(event for event in events if isinstance(event, Step) and event.step == step)


def test_its_events_and_its_embedding_are_those_of_the_loop(host, dataset, settings, tmp_path):
    config = settings(preview_every=3)
    plain = list(train(host, dataset, config, tmp_path / "plain"))
    session = Session(config, tmp_path / "session")
    events = list(session.train(host, dataset))
    assert [type(event) for event in events] == [type(event) for event in plain]
    assert session.done is events[-1]
    assert vectors(session.file).equal(vectors(tmp_path / "plain" / "my-toy.safetensors"))
    assert [file.name for file in session.file.parent.iterdir()] == ["my-toy.safetensors"], "no records unasked"


@pytest.mark.parametrize(
    ("records", "names"),
    [
        (Records.beside_embedding, ["my-toy-loss.png", "my-toy-step00003-1.png", "my-toy.csv"]),
        (
            lambda folder, _: Records.in_own_folder(folder / "run"),
            ["run/loss.csv", "run/loss.png", "run/step00003-1.png"],
        ),
    ],
)
def test_records_are_beside_the_embedding_or_in_a_folder_of_their_own(
    host, dataset, settings, tmp_path, records, names
):
    config = settings(preview_every=3, preview_prompts=("a *", "the *"))
    session = Session(config, tmp_path, records(tmp_path, config.name))
    previews = [event for event in session.train(host, dataset) if isinstance(event, Preview)]
    there = {file.relative_to(tmp_path).as_posix(): file for file in tmp_path.rglob("*.*")}
    assert {*names} <= {*there}
    assert len(there) == 3 + len(previews)
    saved = Image.open(next(file for name, file in there.items() if name.endswith("step00003-1.png")))
    assert saved.tobytes() == next(p.image for p in previews if (p.step, p.prompt) == (3, "the *")).tobytes()


def test_an_interrupted_run_leaves_its_records_and_a_resumed_one_completes_them(host, dataset, settings, tmp_path):
    records = Records.beside_embedding(tmp_path, "my-toy")
    first, second = (Session(settings(), tmp_path, records) for _ in range(2))
    leave_after(first, host, dataset, 3)
    assert records.plot.is_file()
    assert first.done is None
    list(second.train(host, dataset, resume=True))
    for steps in (second.steps, read_steps(records.log)):
        assert [step.step for step in steps] == [0, 1, 2, 3, 4, 5, 6]


def test_before_a_run_has_begun_the_records_of_the_last_one_stay(host, dataset, settings, tmp_path):
    records = Records.beside_embedding(tmp_path, "my-toy")
    records.log.write_text("of the last run", encoding="utf-8")
    with pytest.raises(UserError):
        next(Session(settings(num_vectors=75), tmp_path, records).train(host, dataset))
    assert records.log.read_text(encoding="utf-8") == "of the last run"


def test_a_plot_that_cannot_be_written_does_not_hide_why_the_run_ended(
    host, dataset, settings, tmp_path, monkeypatch, caplog
):
    session = Session(settings(), tmp_path, Records.beside_embedding(tmp_path, "my-toy"))
    monkeypatch.setattr(Image.Image, "save", lambda *_: raising(FULL)(None))
    with at_forward(host.denoiser, [3], raising(UserError("the reason"))), pytest.raises(UserError, match="the reason"):
        list(session.train(host, dataset))
    assert re.search(r"Could not write '.*my-toy-loss.png'", caplog.text)


def test_the_best_step_has_the_lowest_validation_loss_and_the_embedding_of_then(host, dataset, rising, tmp_path):
    session = Session(rising, tmp_path / "whole")
    list(session.train(host, dataset))
    assert session.best.step == min(session.steps[1:], key=lambda step: step.validation_loss).step < 8
    assert session.best.validation_loss == session.steps[session.best.step].validation_loss

    short = Session(rising, tmp_path / "short")
    leave_after(short, host, dataset, session.best.step)
    assert vectors(short.file).equal(session.best.embedding.vectors[ENCODER])
    in_file = load_embedding(short.file).provenance
    assert in_file | session.best.embedding.provenance == in_file


def test_a_step_that_was_not_trained_or_not_measured_is_never_the_best(host, dataset, settings, tmp_path):
    session = Session(settings(steps=4, evaluate_every=4, learning_rate=5.0), tmp_path)
    leave_after(session, host, dataset, 3)
    assert session.steps[0].validation_loss is not None
    assert session.best is None
    assert session.keep_best() == 3
    assert load_embedding(session.file).provenance["step"] == "3"


def test_stopped_early_it_keeps_the_best_and_resumes_from_the_last(host, dataset, rising, tmp_path):
    whole, cut = Session(rising, tmp_path / "whole"), Session(rising, tmp_path / "cut")
    list(whole.train(host, dataset))
    leave_after(cut, host, dataset, 7)
    kept = cut.keep_best()
    assert kept == cut.best.step < 7
    assert vectors(cut.file).equal(cut.best.embedding.vectors[ENCODER])
    assert load_embedding(cut.file).provenance["step"] == str(kept)
    list(Session(rising, tmp_path / "cut").train(host, dataset, resume=True))
    assert vectors(cut.file).equal(vectors(whole.file))


@pytest.mark.parametrize("keep", ["last", "best"])
def test_what_a_complete_run_keeps_is_its_policy(host, dataset, rising, tmp_path, keep):
    session = Session(rising, tmp_path, keep=keep)
    *_, done = session.train(host, dataset)
    kept = "8" if keep == "last" else str(session.best.step)
    assert isinstance(done, Done)
    assert done.embedding.provenance["step"] == load_embedding(session.file).provenance["step"] == kept
    assert vectors(session.file).equal(done.embedding.vectors[ENCODER])


def test_by_default_a_complete_run_keeps_its_last_step(host, dataset, rising, tmp_path):
    session = Session(rising, tmp_path)
    list(session.train(host, dataset))
    assert session.best.step < 8
    assert load_embedding(session.file).provenance["step"] == "8"


def test_before_its_first_step_there_is_nothing_to_keep(settings, tmp_path):
    assert Session(settings(), tmp_path).keep_best() is None
    assert not any(tmp_path.iterdir())


def test_losses_are_the_latest_ones(host, dataset, settings, tmp_path):
    session = Session(settings(steps=3, evaluate_every=2), tmp_path)
    assert (session.loss, session.validation_loss) == (None, None)
    leave_after(session, host, dataset, 1)
    assert (session.loss, session.validation_loss) == (session.steps[1].loss, session.steps[0].validation_loss)


def test_it_keeps_neither_embeddings_of_its_steps_nor_the_model(host, dataset, settings, tmp_path):
    session = Session(settings(), tmp_path)
    list(session.train(host, dataset))
    assert {step.embedding for step in session.steps} == {None}
    assert host not in vars(session).values()
    assert dataset not in vars(session).values()


def test_a_dataset_is_read_as_the_settings_say(host, pictures, settings):
    warnings: list[str] = []
    plain = load_dataset(host, {pictures: 1}, settings(), warnings)
    assert (len(plain), {p.caption for p in plain.pictures}, warnings) == (3, {""}, [])
    config = settings(templates="captions", flip=True, square=True, resolution=16)
    full = load_dataset(host, {pictures: 2}, config, warnings)
    assert len(full) == 6
    assert {p.size.target for p in full.pictures} == {(16, 16)}
    assert {p.repeats for p in full.pictures} == {2}
    assert {p.caption for p in full.pictures} == {"", "red toy", "blue dog"}
    assert ["green.png" in warning for warning in warnings] == [True]
