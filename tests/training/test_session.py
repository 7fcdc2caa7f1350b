"""A session: what it records, what it keeps, and that it leaves the run as train() makes it."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_host import at_forward, raising

from ti_train.drawing.loss_curves import LossCurves
from ti_train.errors import UserError
from ti_train.events import Preview, Step, Warning
from ti_train.formats import load_embedding
from ti_train.training.loop import train
from ti_train.training.session import Records, Session, load_dataset
from ti_train.training.step_log import COLUMNS, read_steps

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def rising(host, dataset, settings, tmp_path_factory):
    """A run that goes on from a trained embedding, and destroys it with a far too high rate after its fourth step."""
    good = Session(settings(steps=20, learning_rate=0.3), tmp_path_factory.mktemp("good"))
    list(good.train(host, dataset))
    return settings(init=str(good.file), steps=8, evaluate_every=1, pull=0, learning_rate="0.05:4, 500:8")


def vectors(file: Path) -> torch.Tensor:
    return load_embedding(file).vectors["emb_params"]


def previews_of(session: Session, host, dataset) -> dict[int, bytes]:
    """Runs a session; step -> the pixels of its preview of the first prompt."""
    first = session.config.preview_prompts[0]
    events = [event for event in session.train(host, dataset) if isinstance(event, Preview) and event.prompt == first]
    return {event.step: event.image.convert("RGB").tobytes() for event in events}


def shown_beside(file: Path) -> bytes:
    """The pixels of an embedding's picture."""
    return Image.open(file.with_suffix(".preview.png")).tobytes()


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
    there = {file.name for file in session.file.parent.iterdir()}
    assert there == {"my-toy.safetensors", "my-toy.preview.png"}, "no records unasked"


def test_an_embedding_has_the_last_preview_of_its_vectors_as_its_picture(host, dataset, settings, tmp_path):
    session = Session(settings(preview_every=3, preview_prompts=("a *", "the *")), tmp_path)
    previews = previews_of(session, host, dataset)
    assert shown_beside(session.file) == previews[session.done.kept]


def test_equal_preview_prompts_have_pictures_of_their_own(host, dataset, settings, tmp_path):
    folder = tmp_path / "runs" / "my-toy"  # of the first run, whose first record is a preview
    session = Session(
        settings(steps=1, preview_every=1, preview_prompts=("a *", "a *")), tmp_path, Records.in_own_folder(folder)
    )
    drawn = [event.image.tobytes() for event in session.train(host, dataset) if isinstance(event, Preview)]
    files = sorted(folder.glob("step*.png"))
    assert [file.name for file in files] == [f"step0000{step}-{number}.png" for step in (0, 1) for number in (0, 1)]
    assert len(set(drawn)) == 4
    assert [Image.open(file).convert("RGB").tobytes() for file in files] == drawn
    assert shown_beside(session.file) == drawn[2], "of the first prompt"


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_run_that_keeps_an_earlier_step_has_the_preview_of_that_step(host, dataset, rising, tmp_path, every):
    session = Session(replace(rising, preview_every=every), tmp_path)
    previews = previews_of(session, host, dataset)
    assert 0 < session.done.kept <= 4
    nearest = max((step for step in previews if 0 < step <= session.done.kept), default=None)
    assert (tmp_path / "my-toy.preview.png").exists() == (nearest is not None)
    assert nearest is None or shown_beside(session.file) == previews[nearest]


def test_so_has_a_resumed_run_and_one_that_was_interrupted(host, dataset, rising, tmp_path):
    config = replace(rising, preview_every=1)
    whole = Session(config, tmp_path / "whole")
    previews = previews_of(whole, host, dataset)
    cut, resumed = Session(config, tmp_path), Session(config, tmp_path)
    leave_after(cut, host, dataset, 7)
    assert shown_beside(cut.file) == previews[whole.done.kept]
    (tmp_path / "my-toy.preview.png").unlink()
    list(resumed.train(host, dataset, resume=True))
    assert shown_beside(resumed.file) == previews[whole.done.kept]


def test_a_numbered_copy_has_the_preview_of_its_step(host, dataset, settings, tmp_path):
    session = Session(settings(copy_every=2, preview_every=4), tmp_path)
    previews = previews_of(session, host, dataset)
    copies = tmp_path / "my-toy-steps"
    assert {file.name for file in copies.glob("*.png")} == {f"my-toy-00000{step}.preview.png" for step in (4, 6)}
    for step in (4, 6):
        assert shown_beside(copies / f"my-toy-00000{step}.safetensors") == previews[step]


def test_the_picture_of_earlier_vectors_is_not_left_beside_new_ones(host, dataset, settings, tmp_path):
    list(Session(settings(preview_every=3), tmp_path).train(host, dataset))
    assert (tmp_path / "my-toy.preview.png").exists()
    list(Session(settings(seed=1), tmp_path).train(host, dataset))
    assert not (tmp_path / "my-toy.preview.png").exists()


def test_a_run_without_previews_has_no_picture(host, dataset, settings, tmp_path):
    list(Session(settings(), tmp_path).train(host, dataset))
    assert [file.name for file in tmp_path.iterdir()] == ["my-toy.safetensors"]


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
    assert len(there) == 4 + len(previews), "with the embedding and its picture"
    saved = Image.open(next(file for name, file in there.items() if name.endswith("step00003-1.png")))
    shown = next(p for p in previews if (p.step, p.prompt) == (3, "the *"))
    assert saved.tobytes() == shown.image.tobytes()
    inside = load_embedding(Path(saved.filename))
    assert inside.provenance["step"] == "3"
    assert torch.equal(*(next(iter(word.vectors.values())) for word in (inside, shown.embedding)))


def test_an_interrupted_run_leaves_its_records_and_a_resumed_one_completes_them(host, dataset, settings, tmp_path):
    records = Records.beside_embedding(tmp_path, "my-toy")
    first, second = (Session(settings(), tmp_path, records) for _ in range(2))
    leave_after(first, host, dataset, 3)
    assert records.plot.is_file()
    assert first.done is None
    list(second.train(host, dataset, resume=True))
    for steps in (second.steps, read_steps(records.log)):
        assert [step.step for step in steps] == [0, 1, 2, 3, 4, 5, 6]
    whole = LossCurves(second.steps)
    assert list(second.curves.loss) == list(whole.loss)
    assert list(second.curves.band) == list(whole.band)


def test_before_a_run_has_begun_the_records_of_the_last_one_stay(host, dataset, settings, tmp_path):
    records = Records.beside_embedding(tmp_path, "my-toy")
    written = f"{','.join(COLUMNS)}\nof the last run"
    records.log.write_text(written, encoding="utf-8")
    with pytest.raises(UserError):
        next(Session(settings(num_vectors=75), tmp_path, records).train(host, dataset))
    assert records.log.read_text(encoding="utf-8") == written


def test_a_run_that_ends_before_its_first_step_leaves_nothing(host, dataset, settings, tmp_path):
    session = Session(settings(), tmp_path, Records.beside_embedding(tmp_path, "my-toy"))
    with at_forward(host.denoiser, [1], raising(KeyboardInterrupt())), pytest.raises(KeyboardInterrupt):
        list(session.train(host, dataset))
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_that_fails_at_once_says_where_it_is(host, dataset, settings, tmp_path):
    leave_after(Session(settings(), tmp_path), host, dataset, 3)
    session = Session(settings(), tmp_path)
    with at_forward(host.denoiser, [1], raising(KeyboardInterrupt())), pytest.raises(KeyboardInterrupt):
        list(session.train(host, dataset, resume=True))
    assert "Continue from step 3 here." in session.saved("here")


def test_a_plot_that_cannot_be_written_does_not_hide_why_the_run_ended(
    host, dataset, settings, tmp_path, monkeypatch, caplog
):
    session = Session(settings(), tmp_path, Records.beside_embedding(tmp_path, "my-toy"))
    monkeypatch.setattr(Image.Image, "save", lambda *_: raising(FULL)(None))
    with at_forward(host.denoiser, [3], raising(UserError("the reason"))), pytest.raises(UserError, match="the reason"):
        list(session.train(host, dataset))
    assert re.search(r"Could not write '.*my-toy-loss.png'", caplog.text)


def test_a_run_that_became_worse_keeps_an_earlier_step_and_says_so(host, dataset, rising, tmp_path):
    session = Session(rising, tmp_path)
    *_, warning, done = session.train(host, dataset)
    losses = {step.step: step.validation_loss for step in session.steps}
    assert isinstance(warning, Warning)
    assert "Try fewer steps" in warning.message
    assert done.kept <= 4
    assert session.kept == (done.kept, losses[done.kept])
    header = load_embedding(session.file).provenance
    assert (header["step"], header["kept"]) == (str(done.kept), done.why)
    assert float(header["validation_loss"]) == pytest.approx(losses[done.kept], rel=1e-4)
    assert float(header["validation_loss_untrained"]) == pytest.approx(losses[0], rel=1e-4)

    short = Session(rising, tmp_path / "short")
    leave_after(short, host, dataset, done.kept)
    assert vectors(short.file).equal(vectors(session.file)), "the vectors of that step"


@pytest.mark.parametrize("last", [3, 7, 8])
def test_the_rule_is_the_same_however_a_run_ends(host, dataset, rising, tmp_path, last):
    """Stopped and kept, interrupted, or complete."""
    kept, cut = Session(rising, tmp_path / "kept"), Session(rising, tmp_path / "cut")
    *_, done = kept.train(host, dataset, stop=lambda: kept.steps[-1].step == last)
    leave_after(cut, host, dataset, last)
    assert vectors(cut.file).equal(vectors(kept.file))
    assert load_embedding(cut.file).provenance["kept"] == done.why
    assert done.complete == (last == 8)


def test_a_run_that_is_stopped_and_kept_can_be_continued(host, dataset, settings, tmp_path):
    expected = Session(settings(), tmp_path / "whole")
    list(expected.train(host, dataset))
    session = Session(settings(), tmp_path)
    *_, done = session.train(host, dataset, stop=lambda: True)
    assert (done.kept, done.complete, session.steps[-1].step) == (1, False, 1), "after one step at the earliest"
    list(Session(settings(), tmp_path).train(host, dataset, resume=True))
    assert vectors(session.file).equal(vectors(expected.file))


@pytest.mark.parametrize(
    ("earlier", "step", "said"),
    [
        (False, 0, r"No step was completed, so there is nothing to continue\. Start the training again\."),
        (False, 4, r"Step 4 is saved in '.*my-toy.safetensors'\. Continue from step 4 here\."),
        (True, 0, r"there is nothing to continue; '.*my-toy.safetensors' is unchanged\. Start the training again\."),
        (True, 4, r"Step 4 is saved in '.*my-toy.resume'; the earlier 'my-toy.safetensors' is unchanged\. Continue fr"),
    ],
)
def test_an_interrupted_run_says_where_it_is_and_how_to_continue(
    host, dataset, settings, tmp_path, earlier, step, said
):
    if earlier:
        list(Session(settings(seed=1), tmp_path).train(host, dataset))
    session = Session(settings(), tmp_path)
    leave_after(session, host, dataset, step)
    assert re.search(said, session.saved("here"))


def test_a_resumed_session_has_the_curve_of_the_interrupted_part(host, dataset, settings, tmp_path):
    records = Records(tmp_path / "my-toy.csv", tmp_path / "loss.png", None)
    first, second = Session(settings(), tmp_path, records), Session(settings(), tmp_path, records)
    leave_after(first, host, dataset, 3)
    list(second.train(host, dataset, resume=True))
    assert [step.step for step in second.steps] == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["loss.png", "my-toy.csv", "my-toy.safetensors"]


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
    assert (len(plain), {p.caption for p in plain.pictures}) == (3, {""})
    assert "2 image(s) have a caption, which the templates 'object' do not use." in warnings.pop()
    config = settings(templates="captions", flip=True, square=True, resolution=16)
    full = load_dataset(host, {pictures: 2}, config, warnings)
    assert len(full) == 6
    assert {p.size.target for p in full.pictures} == {(16, 16)}
    assert {p.repeats for p in full.pictures} == {2}
    assert {p.caption for p in full.pictures} == {"", "red toy", "blue dog"}
    assert ["green.png" in warning for warning in warnings] == [True]


def test_a_caption_that_names_the_embedding_is_used_without_a_template_for_captions(host, pictures, settings, tmp_path):
    own = Path(shutil.copytree(pictures, tmp_path / "own"))
    (own / "red.txt").write_text("[name] in red", encoding="utf-8")
    warnings: list[str] = []
    data = load_dataset(host, {own: 1}, settings(templates="object"), warnings)
    assert sorted(p.caption for p in data.pictures) == ["", "", "[name] in red"]
    (remark,) = [warning for warning in warnings if "caption" in warning]
    assert remark.startswith("1 image(s) have a caption, which"), "the others"


# --- A disk that is full, and a run that was killed -----------------------------


def test_where_a_full_disk_s_run_was_saved_is_told_though_the_log_is_on_it_too(host, dataset, settings, tmp_path):
    """The log has a line of the failed write still to write when it is closed."""

    class Full(io.BytesIO):
        def write(self, _data) -> int:
            raise FULL

    session = Session(settings(), tmp_path, Records.beside_embedding(tmp_path, "my-toy"))
    events = session.train(host, dataset)
    next(event for event in events if isinstance(event, Step) and event.step == 2)
    full = io.TextIOWrapper(io.BufferedWriter(Full()), newline="")
    session._log._file, session._log._writer = full, csv.writer(full)
    (tmp_path / "my-toy.resume").mkdir()  # cannot be replaced
    with pytest.raises(UserError, match=r"Step 3 was saved to '.*' instead"):
        list(events)
    assert "my-toy-loss.png" in {file.name for file in tmp_path.iterdir()}


def test_what_a_killed_run_has_left_of_its_records_is_removed(host, dataset, settings, tmp_path):
    theirs = [".my-toy-2.csv.1.2", ".my-toy.png.1.2", ".my-toy.csv.bak"]
    for name in (".my-toy.csv.1.2", ".my-toy-loss.png.1.2", ".my-toy-step00002-0.png.1.2", *theirs):
        (tmp_path / name).touch()
    list(Session(settings(), tmp_path, Records.beside_embedding(tmp_path, "my-toy")).train(host, dataset))
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith(".")) == sorted(theirs)


def test_so_is_what_it_has_left_after_its_last_step(host, dataset, settings, tmp_path):
    """The resumed run has no step to train."""
    config = settings()
    with closing(Session(config, tmp_path).train(host, dataset)) as events:
        next(event for event in events if isinstance(event, Step) and event.step == config.steps)
    (tmp_path / ".my-toy-step00006-0.png.1.2").touch()
    list(Session(config, tmp_path, Records.beside_embedding(tmp_path, "my-toy")).train(host, dataset, resume=True))
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
