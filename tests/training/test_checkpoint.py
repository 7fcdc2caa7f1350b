"""A run on disk: whole or not at all, resumed only by itself, and rescued when the disk is full."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from tiny_host import TinyHost

from ti_train.embedding import Embedding
from ti_train.errors import UserError
from ti_train.events import Checkpoint, Step
from ti_train.files import write_atomically
from ti_train.formats import load_embedding, save_embedding
from ti_train.formats.renaming import with_metadata
from ti_train.prompts import Templates
from ti_train.training import run_lock
from ti_train.training.checkpoint import Interrupted, RunFiles, name_in
from ti_train.training.keeping import Course
from ti_train.training.loop import identity, train
from ti_train.training.provenance import as_embedding, digest_of
from ti_train.training.state import State
from ti_train.training.state_file import file_of

VECTORS = torch.arange(8, dtype=torch.float32).view(2, 4)
STATE = State(
    7, 1.5, {"clip_l": VECTORS}, {"clip_l": VECTORS * 2}, {"0.exp_avg": VECTORS / 3, "0.step": torch.tensor(7.0)}
)
COURSE = Course().after(0, [1.0, 2.0], {}).after(7, [0.5, 1.0], {"clip_l": VECTORS})
WORD = Embedding("cat", {"clip_l": VECTORS})
IDENTITY = {"seed": 0, "learning_rate": 5e-3, "model": "abc", "pictures": "xyz"}


@pytest.fixture
def files(tmp_path) -> RunFiles:
    return RunFiles(tmp_path / "new folder", "cat", IDENTITY)


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing can be put into the folders that are added to the list."""
    full: list[Path] = []
    replace = os.replace

    def refuse(source, target):
        if any(folder in Path(target).parents for folder in full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    return full


def test_a_state_comes_back_as_it_was_and_the_word_beside_it(files):
    files.save(STATE, WORD)
    back = files.load()
    assert (back.step, back.seconds) == (7, 1.5)
    for was, now in ((STATE.vectors, back.vectors), (STATE.optimizer, back.optimizer)):
        assert was.keys() == now.keys()
        assert all(torch.equal(was[key], now[key]) for key in was)
    assert torch.equal(load_embedding(files.embedding).vectors["emb_params"], VECTORS)


def test_saving_pictures_of_many_sizes_leaves_nothing_in_the_process():
    """A C type of a size stays until the process ends: a server would have thousands."""

    def c_types() -> int:
        gc.collect()
        return sum(type(each).__name__ == "PyCPointerType" for each in gc.get_objects())

    def with_picture(size: int) -> State:
        return replace(STATE, pictures={"0": torch.zeros(size, dtype=torch.uint8)})

    file_of(with_picture(1000), IDENTITY)
    before = c_types()
    for size in range(2000, 2050):
        file_of(with_picture(size), IDENTITY)
    assert c_types() == before


def test_the_state_does_not_look_like_a_word_to_a_host(files):
    """They list *.safetensors, *.pt, *.bin and pictures."""
    assert files.state.suffix not in (".safetensors", ".pt", ".bin", ".png", ".webp")


def test_nothing_else_is_left_in_the_folder(files):
    files.save(STATE, WORD)
    assert sorted(path.name for path in files.folder.iterdir()) == ["cat.resume", "cat.safetensors"]
    files.finish()
    files.finish()
    assert [path.name for path in files.folder.iterdir()] == ["cat.safetensors"]


def test_without_a_state_there_is_nothing_to_resume(files):
    with pytest.raises(UserError, match=r"Nothing to resume: .*cat\.resume' does not exist"):
        files.load()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"model": "def"}, "another model is loaded"),
        ({"pictures": "uvw"}, r"the images are not the same \(their files, captions, masks or crops\)"),
        ({"new_setting": True}, "new_setting was None, now True"),
        ({"pull": 1.0}, "pull was 0.0, now 1.0"),  # of a version without it
    ],
)
def test_another_runs_state_is_refused_with_what_differs(files, changed, sentence):
    files.save(STATE, WORD)
    other = RunFiles(files.folder, files.name, IDENTITY | changed)
    with pytest.raises(UserError, match=f"belongs to another run: {sentence}\\. Use the same settings"):
        other.load()


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-3], lambda b: b"\xff" * 40, lambda b: b[:20]])
def test_a_damaged_state_is_refused(files, damage):
    files.save(STATE, WORD)
    files.state.write_bytes(damage(files.state.read_bytes()))
    with pytest.raises(UserError, match=r"cat\.resume' is not the state of a run, or it is damaged"):
        files.load()


MEASURED = json.loads(COURSE.written())
MANY, DEEP = "9" * 5000, "[" * 100_000


@pytest.mark.parametrize(
    "said",
    [
        *({"step": text} for text in ("", "x", "1e999", "nan", "-7", "0", "7.5", MANY)),
        *({"seconds": text} for text in ("", "x", "inf", "nan", "-1")),
        *({"identity": text} for text in ("", "x", "7", "null", '"x"', "[1]", DEEP)),
        *({"measured": text} for text in ("", "x", "7", "null", "[]", "{}", DEEP)),
        *(
            {"measured": json.dumps(MEASURED | changed)}
            for changed in (
                {"since": None},
                {"since": []},
                {"latest": 7},
                {"latest": {"step": "x", "logs": [1.0, 2.0]}},
                {"latest": {"step": 1e999, "logs": [1.0, 2.0]}},
                {"latest": {"step": 7, "logs": None}},
                {"latest": {"step": 7, "logs": []}},
                {"latest": {"step": 7, "logs": [1.0]}},
                {"latest": {"step": 7, "logs": [1.0, 2.0, 3.0]}},
                {"latest": {"step": 7, "logs": [1.0, "x"]}},
                {"latest": {"step": 7, "logs": [1.0, 1e308]}},
                {"latest": {"step": 7, "logs": [1.0, math.nan]}},
            )
        ),
    ],
)
def test_a_header_that_no_run_has_written_is_refused(files, said):
    files.save(replace(STATE, course=COURSE), WORD)
    files.state.write_bytes(with_metadata(files.state.read_bytes(), lambda header: {**header, **said}))
    left = files.interrupted()
    assert left is None or left.step == 7
    with pytest.raises(UserError, match=r"cat\.resume' is not the state of a run, or it is damaged"):
        files.load()


@pytest.mark.parametrize(
    "changed",
    [
        {"vectors": {}},
        {"initial": {}},
        {"initial": {"clip_g": VECTORS.clone()}},
        {"averaged": {"clip_l": VECTORS[:1]}},
        {"vectors": {"clip_l": VECTORS.half()}},
        {"vectors": {"clip_l": VECTORS / 0}},
        {"vectors": {"clip_l": VECTORS[0]}, "initial": {"clip_l": VECTORS[0] * 2}},
        {"per_image": {"clip_l": VECTORS[:, :2]}},
        {"per_image": {"clip_g": VECTORS.clone()}},
        {"pictures": {"x": VECTORS.clone()}},
        {"pictures": {"3": torch.zeros(8, dtype=torch.uint8)}},
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(files, changed):
    files.folder.mkdir()
    files.embedding.write_bytes(b"another run's")
    files.save(replace(STATE, **changed), WORD)
    with pytest.raises(UserError, match="is not the state of a run, or it is damaged"):
        files.load()


@pytest.mark.parametrize("vectors", [{"clip_m": torch.zeros(1, 192)}, {"clip_l": torch.zeros(1, 7)}])
def test_vectors_for_another_model_are_refused_although_the_header_names_this_one(
    host, dataset, settings, tmp_path, vectors
):
    of_this_one = identity(host, dataset, settings(), Templates.load(settings().templates))
    files = RunFiles(tmp_path, settings().name, of_this_one)
    initial = {encoder: v.clone() for encoder, v in vectors.items()}
    files.save(replace(STATE, vectors=vectors, initial=initial, optimizer={}), WORD)
    with pytest.raises(UserError, match=r"has vectors of the widths .*; this model's text encoders need .* Delete it"):
        list(train(host, dataset, settings(), tmp_path, resume=True))


MOMENTS = STATE.optimizer | {"0.exp_avg_sq": VECTORS**2, "loss_scale": torch.tensor(16.0)}
SPHERE = {"0.step": torch.tensor([[7.0], [0.0]]), "0.size": torch.ones(2, 1)}


@pytest.mark.parametrize(
    ("state", "changed", "why"),
    [
        (
            MOMENTS,
            {"0.exp_avg": VECTORS[0] / 3},
            r"'optimizer.0.exp_avg' is torch.float32 \[4\] and must be",
        ),
        (MOMENTS, {"0.exp_avg": VECTORS.half()}, r"is torch.float16 \[2, 4\] and must be torch.float32 \[2, 4\]"),
        (MOMENTS, {"0.exp_avg": torch.complex(VECTORS, VECTORS)}, "is torch.complex64"),
        (MOMENTS, {"0.exp_avg": torch.tensor(1.0)}, r"is torch.float32 \[\] and must be"),
        (MOMENTS, {"0.exp_avg": VECTORS / 0}, "'optimizer.0.exp_avg' has a number that is not finite"),
        (MOMENTS, {"0.exp_avg_sq": -VECTORS}, "has a number that is not finite, or less than 0"),
        (MOMENTS, {"0.exp_avg_sq": VECTORS.T.contiguous()}, r"\[4, 2\] and must be"),
        (MOMENTS, {"0.step": torch.tensor(-1.0)}, "'optimizer.0.step' has a number that"),
        (MOMENTS, {"0.step": torch.tensor([7.0, 7.0])}, r"\[2\] and must be torch.float32 \[2, 1\]"),
        (MOMENTS, {"0.step": torch.tensor(7)}, r"torch.int64 \[\] and must be torch.float32 \[\]"),
        (MOMENTS, {"loss_scale": torch.tensor(0.0)}, "'optimizer.loss_scale' has a number that .* less than 1"),
        (MOMENTS, {"1.exp_avg": VECTORS.clone()}, "'1.exp_avg' is of no optimizer of 1 tensor"),
        (MOMENTS, {"x": VECTORS.clone()}, "'x' is of no optimizer"),
        (SPHERE, {"0.size": torch.ones(2)}, r"\[2\] and must be torch.float32 \[2, 1\]"),
        (SPHERE, {"0.size": torch.ones(2, 4)}, r"\[2, 4\] and must be torch.float32 \[2, 1\]"),
    ],
)
def test_an_optimizer_that_no_run_has_had_is_refused_and_the_files_stay(files, state, changed, why):
    """Some of it would only fail within a step; the rest would be broadcast, or turn the vectors into NaN."""
    files.save(replace(STATE, optimizer=state), WORD)
    assert files.can_resume()
    try:
        files.save(replace(STATE, optimizer=state | changed), WORD)
    except SafetensorError:
        pytest.skip("this safetensors writes no complex numbers")
    before = {file.name: file.read_bytes() for file in files.folder.iterdir()}
    with pytest.raises(UserError, match=rf"cat\.resume' is not the state of a run, .*{why}.* Delete it"):
        files.load()
    assert {file.name: file.read_bytes() for file in files.folder.iterdir()} == before


def test_the_step_of_a_damaged_embedding_is_unknown(files):
    files.save(STATE, replace(WORD, provenance={"run_id": STATE.run, "step": "9" * 5000}))
    assert files.interrupted() == Interrupted(7, None)


def test_a_safetensors_file_of_another_kind_is_no_state(files):
    files.save(STATE, WORD)
    files.state.write_bytes(files.embedding.read_bytes())
    with pytest.raises(UserError, match="is not the state of a run"):
        files.load()


def test_a_run_of_before_an_option_existed_is_resumed(files):
    RunFiles(files.folder, "cat", IDENTITY).save(STATE, WORD)
    assert RunFiles(files.folder, "cat", IDENTITY | {"timesteps": "auto"}).load().step == 7
    with pytest.raises(UserError, match="timesteps was 'auto', now 'uniform'"):
        RunFiles(files.folder, "cat", IDENTITY | {"timesteps": "uniform"}).load()


def test_a_run_with_other_settings_of_the_host_is_another_one(host, dataset, settings, tmp_path):
    host.settings = "clip skip 2"
    for _ in train(host, dataset, settings(), tmp_path, stop=lambda: True):
        pass
    templates = Templates.load(settings().templates)
    mine, others = (identity(other, dataset, settings(), templates) for other in (host, TinyHost()))
    assert RunFiles(tmp_path, "my-toy", mine).has_finished()
    assert RunFiles(tmp_path, "my-toy", mine).can_resume()
    assert not RunFiles(tmp_path, "my-toy", others).has_finished()
    with pytest.raises(UserError, match="belongs to another run: settings was 'clip skip 2', now ''"):
        RunFiles(tmp_path, "my-toy", others).load()


def test_a_run_of_before_the_hosts_settings_were_recorded_is_resumed(files):
    files.save(STATE, WORD)
    assert RunFiles(files.folder, "cat", IDENTITY | {"settings": "clip skip 2"}).load().step == 7


def test_a_run_with_a_name_of_an_older_version_is_resumed(host, dataset, settings, tmp_path):
    with closing(train(host, dataset, settings(), tmp_path)) as events:
        next(event for event in events if isinstance(event, Step) and event.step == 3)
    for file in tmp_path.iterdir():
        file.rename(tmp_path / file.name.replace("my-toy", "my toy"))
    first, *_, done = train(host, dataset, settings(name=name_in(tmp_path, "my toy")), tmp_path, resume=True)
    assert first.message.startswith("The name 'my toy' is of an older version: it contains a space")
    assert first.message.endswith("After the training, rename it to my-toy.")
    assert done.path == tmp_path / "my toy.safetensors"
    assert replace(settings(name=name_in(tmp_path, "my toy")), steps=3).name == "my toy"


@pytest.mark.parametrize("name", ["my toy", "../my toy", "a/my toy", "(x)", ".", " my toy"])
def test_only_a_run_that_is_there_may_have_such_a_name(settings, tmp_path, name):
    (tmp_path / "a").mkdir()
    for there in ("other.resume", "a/my toy.resume"):
        (tmp_path / there).write_bytes(b"")
    with pytest.raises(UserError, match="Use a name such as"):
        settings(name=name_in(tmp_path / "a" if name.startswith("..") else tmp_path, name))


# --- A disk that is full --------------------------------------------------------


def test_what_killed_runs_have_left_of_their_writes_is_removed_when_the_next_one_starts(files):
    files.save(STATE, WORD, finished=True)
    files.copy(STATE, WORD)
    there = {path for path in files.folder.rglob("*") if path.is_file()}
    for left in (
        ".cat.safetensors.12", ".cat.preview.png.12", ".cat-worse.preview.png.12", ".cat.resume.12",
        "cat-steps/.cat-000014.safetensors.12", "cat-steps/.cat-000014.preview.png.12",
    ):  # fmt: skip
        (files.folder / left).touch()
    (files.folder / ".dog.safetensors.12").touch()
    with files.locked():
        assert {path for path in files.folder.rglob("*") if path.is_file() and path.suffix != ".lock"} == {
            *there, files.folder / ".dog.safetensors.12",
        }  # fmt: skip


def test_what_cannot_be_removed_does_not_keep_a_run_from_starting(files):
    (files.folder / ".cat.resume.12").mkdir(parents=True)
    with files.locked():
        pass


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, full_disk):
    write_atomically(tmp_path / "a.txt", b"old")
    full_disk.append(tmp_path)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "a.txt", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": b"old"}


def test_what_was_learnt_is_saved_elsewhere_and_can_be_resumed_from_there(files, full_disk):
    full_disk.append(files.folder)
    with pytest.raises(UserError, match=r"No space left.* Step 7 was saved to '") as told:
        files.rescue(STATE, WORD)
    refuge = Path(re.findall("was saved to '(.+?)' instead", str(told.value))[0])
    assert RunFiles(refuge, "cat", IDENTITY).load().step == 7
    assert torch.equal(load_embedding(refuge / "cat.safetensors").vectors["emb_params"], VECTORS)


def test_when_nothing_can_be_written_anywhere_that_is_said_in_words(files, full_disk):
    full_disk.append(Path(files.folder.anchor))
    with pytest.raises(UserError, match=r"Neither .* nor .* is writable"):
        files.rescue(STATE, WORD)


def test_a_rescue_that_succeeds_is_silent(files):
    files.rescue(STATE, WORD)
    assert files.load().step == 7


def test_a_finished_run_is_known_by_the_header_of_its_embedding(files):
    """Whatever differs in settings, model or images makes it another run."""
    assert not files.has_finished()
    files.save(STATE, replace(WORD, provenance={"run_id": STATE.run}))
    assert not files.has_finished(), "an embedding of another origin"
    files.save(STATE, replace(WORD, provenance={"run_id": STATE.run, "finished": digest_of(IDENTITY)}))
    assert files.has_finished()
    assert files.can_resume()
    other = RunFiles(files.folder, "cat", IDENTITY | {"pictures": "others"})
    assert not other.has_finished()
    assert not other.can_resume()


def test_only_a_run_that_has_ended_as_wanted_is_finished(host, dataset, settings, tmp_path):
    """Not one that was interrupted, even if its state is deleted; one that was stopped and kept is."""
    config = settings(steps=4, checkpoint_every=1)
    files = RunFiles(tmp_path, config.name, identity(host, dataset, config, Templates.load(config.templates)))
    with closing(train(host, dataset, config, tmp_path)) as events:
        next(event for event in events if isinstance(event, Checkpoint))
    files.state.unlink()
    assert files.embedding.exists()
    assert not files.has_finished()
    list(train(host, dataset, config, tmp_path / "stopped", stop=lambda: True))
    assert RunFiles(tmp_path / "stopped", config.name, files.identity).has_finished()


@pytest.mark.parametrize("init", ["{}", "toy | {}"], ids=["a file", "a text or a file"])
def test_another_content_of_the_initial_file_is_another_run_but_can_be_resumed(host, dataset, settings, tmp_path, init):
    save_embedding(Embedding("start", {"clip_tiny": torch.ones(1, 8)}), tmp_path / "start.safetensors")
    config = settings(steps=2, init=init.format(tmp_path / "start.safetensors"))
    before = identity(host, dataset, config, Templates.load(config.templates))
    save_embedding(Embedding("start", {"clip_tiny": torch.zeros(1, 8) + 2}), tmp_path / "start.safetensors")
    after = identity(host, dataset, config, Templates.load(config.templates))
    assert before != after
    RunFiles(tmp_path, "cat", before).save(STATE, WORD)
    assert RunFiles(tmp_path, "cat", after).can_resume()


@pytest.mark.parametrize("earlier", [False, True], ids=["a run of this version", "one of an earlier version"])
@pytest.mark.parametrize("init", ["{}", "toy | {}"], ids=["a file", "a text or a file"])
def test_a_run_is_resumed_after_its_initial_file_was_moved(host, dataset, settings, tmp_path, init, earlier):
    def files(config) -> RunFiles:
        return RunFiles(tmp_path, "cat", identity(host, dataset, config, Templates.load(config.templates)))

    first = files(settings(init=init.format(tmp_path / "start.safetensors")))
    if earlier:
        first.identity["init"] = init.format(tmp_path / "start.safetensors")
    first.save(STATE, WORD)
    assert files(settings(init=init.format(tmp_path / "elsewhere" / "kitty.safetensors"))).load().step == 7
    with pytest.raises(UserError, match="init was "):
        files(settings(init="dog")).load()


def test_a_run_of_before_a_plain_rate_was_a_number_is_resumed(files):
    RunFiles(files.folder, "cat", IDENTITY | {"learning_rate": "0.005"}).save(STATE, WORD)
    assert files.load().step == 7


@pytest.mark.parametrize("wakes_up", ["and is closed", "and goes on"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_that_slept_while_another_process_took_it_over_writes_nothing_more(
    host, dataset, settings, tmp_path, monkeypatch, wakes_up, finished
):
    """Such as on a machine that was paused, over a file system without locks."""

    def refuse(_file) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(run_lock, "_lock", refuse)
    config = settings(name="cat", checkpoint_every=1)
    sleeper = train(host, dataset, config, tmp_path)
    next(event for event in sleeper if event == Checkpoint(2, tmp_path / "cat.safetensors"))
    monkeypatch.setattr(run_lock, "_machine", lambda: "another boot")
    with closing(train(host, dataset, config, tmp_path, resume=True)) as new:
        for event in new:
            if not finished and isinstance(event, Checkpoint) and event.step == 5:
                break
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        assert ("cat.resume" in before) is not finished
        if wakes_up == "and goes on":
            next(event for event in sleeper if isinstance(event, Checkpoint))
        sleeper.close()
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_embedding_has_all_digits_of_the_runs_vectors(settings):
    state = replace(STATE, vectors={"clip_l": VECTORS / 3}, initial={"clip_l": VECTORS / 7})
    embedding = as_embedding(state, settings(num_vectors=len(VECTORS)), IDENTITY)
    assert torch.equal(embedding.vectors["clip_l"], VECTORS / 3)
