"""`fleet`: with real worker processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_host import ENCODER, TinyHost

from ti_train.__main__ import main
from ti_train.commands import fleet as fleet_command
from ti_train.commands.fleet import remarks_on, scores, show_sheets, train_all
from ti_train.embedding import Embedding
from ti_train.fleet import progress
from ti_train.fleet.job_list import Job
from ti_train.fleet.plan import plan
from ti_train.fleet.records import Ledger, Record
from ti_train.fleet.worker import Rules, work
from ti_train.formats import save_embedding
from ti_train.training.checkpoint import header_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("a", "b", "pets/c")


@pytest.fixture
def fleet(pipeline_folder, pictures, tmp_path):
    """The arguments of a fleet of three, of a few quick steps each."""
    rows = [f"{name},toy,{pictures},{seed}" for seed, name in enumerate(NAMES)]
    (tmp_path / "list.csv").write_text("\n".join(["name,init,images,seed", *rows]), encoding="utf-8")
    given = [tmp_path / "list.csv", "--model", pipeline_folder, "--device", "cpu", "--dtype", "float32"]

    def fleet(out: str, *more: str) -> list[str]:
        quick = ("--steps", "4", "--batch-size", "2", "--checkpoint-every", "5")
        return ["fleet", *map(str, given), *quick, "--out", str(tmp_path / out), *more]

    return fleet


def vectors(out: Path) -> dict[str, torch.Tensor]:
    return {name: load_file(out / f"{name}.safetensors")["emb_params"] for name in NAMES}


def status(out: Path) -> dict[str, str]:
    return {entry["name"]: entry["status"] for entry in json.loads((out / "fleet.json").read_bytes())}


def test_each_is_evaluated_and_the_poor_ones_are_named(pictures, settings, clip_weights, tmp_path):
    """In this process: the workers of another do not know the small CLIP."""
    jobs = [Job(settings(name=name), {pictures: 1}, "tiny") for name in ("a", "b")]
    judge = partial(scores, "tiny-clip", str(clip_weights), 1)
    work(TinyHost, jobs, Rules(tmp_path, evaluate=judge), lambda: False)
    records = [Ledger(tmp_path).read(job.name) for job in jobs]
    assert all(-1 <= record.scores["image_similarity"] <= 1 for record in records)
    assert all(-1 <= record.scores["text_similarity"] <= 1 for record in records)
    assert all("have a caption, which the templates" in record.remarks[0] for record in records)
    (remark,) = remarks_on(records, 2)
    assert remark == "2 embedding(s) have an image similarity below 2: a, b."
    assert remarks_on(records, 0) == []
    Ledger(tmp_path).write_tables(records)
    assert (tmp_path / "fleet.csv").read_text().splitlines()[0].endswith(",image_similarity,text_similarity")


def test_what_was_trained_before_is_only_evaluated(pictures, settings, clip_weights, tmp_path):
    job = Job(settings(name="a"), {pictures: 1}, "tiny")
    work(TinyHost, [job], Rules(tmp_path), lambda: False)
    before = (tmp_path / "a.safetensors").stat().st_mtime_ns
    plan([job], Ledger(tmp_path), update=False, evaluate=True)
    judge = partial(scores, "tiny-clip", str(clip_weights), 1)
    work(TinyHost, [job], Rules(tmp_path, evaluate=judge), lambda: False)
    assert Ledger(tmp_path).read("a").scores
    assert (tmp_path / "a.safetensors").stat().st_mtime_ns == before


def test_the_samples_of_an_earlier_embedding_of_a_name_are_not_scored(pictures, settings, clip_weights, tmp_path):
    host, job = TinyHost(), Job(settings(name="a"), {pictures: 1}, "tiny")

    def scored(word: str, out: Path) -> dict[str, float]:
        out.mkdir(exist_ok=True)
        save_embedding(Embedding("a", {"emb_params": host.vocabulary(ENCODER).rows(word)}, {}), out / "a.safetensors")
        return scores("tiny-clip", str(clip_weights), 1, host, job, out, lambda: False)

    first, dog = scored("cat", tmp_path / "one"), scored("dog", tmp_path / "two")
    assert scored("dog", tmp_path / "one") == dog != first


def test_one_that_cannot_be_evaluated_is_trained_all_the_same(pictures, settings, tmp_path):
    judge = partial(scores, "tiny-clip", str(tmp_path / "nothing"), 1)
    work(TinyHost, [Job(settings(name="a"), {pictures: 1}, "tiny")], Rules(tmp_path, evaluate=judge), lambda: False)
    record = Ledger(tmp_path).read("a")
    assert record.status == "done"
    (remark,) = remarks_on([record], 0)
    assert remark.startswith("a: Trained, but not evaluated: ")


def test_a_disk_that_is_full_at_the_end_does_not_hide_what_became_of_each(
    pictures, settings, tmp_path, monkeypatch, capsys
):
    job = Job(settings(name="a"), {pictures: 1}, "tiny")

    def engine(look) -> None:
        work(TinyHost, [job], Rules(tmp_path), lambda: False)
        monkeypatch.setattr(os, "replace", full)

    def full(*_names) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (record,) = train_all(engine, [job], Ledger(tmp_path), Rules(tmp_path))
    assert record.status == "done"
    assert "fleet.csv and fleet.json could not be written (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--engine", "ray", "--together", "2"], "--together 2 does not work with --engine ray"),
        (["--address", "auto"], "--address auto is of a Ray cluster. Give --engine ray too."),
    ],
)
def test_what_an_engine_does_not_have_is_refused(fleet, given, sentence, capsys):
    assert main(fleet("out", *given)) != 0
    assert sentence in capsys.readouterr().err


def test_options_of_lines_and_of_the_command_line_reach_the_jobs(fleet, pictures, tmp_path, monkeypatch, capsys):
    """With their remarks, and with the precision, so that a changed one is noticed."""
    rows = [f"a,toy,{pictures},3.5,", f"b,toy,{pictures},,a red *"]
    (tmp_path / "list.csv").write_text("\n".join(["name,init,images,guidance,preview_prompts", *rows]))
    given: list[Job] = []
    monkeypatch.setattr(fleet_command, "train_all", lambda _engine, jobs, *_: given.extend(jobs) or [])
    assert main(fleet("out", "--preview-sampler", "euler")) == 0
    assert [(job.config.guidance, job.config.dtype, job.config.preview_every) for job in given] == [
        (3.5, "float32", 0),
        (0.0, "float32", 100),
    ]
    told = capsys.readouterr().err
    assert "--guidance has no effect: " in told
    assert "--preview-sampler has no effect: " in told


def test_what_was_trained_from_other_inputs_is_told(fleet, tmp_path, monkeypatch, capsys):
    Ledger(tmp_path / "out").write(Record("a", status="done", inputs={"files": {}, "options": {"steps": 9}}))
    (tmp_path / "out" / "a.safetensors").touch()
    monkeypatch.setattr(fleet_command, "train_all", lambda *_: [])
    assert main(fleet("out")) == 0
    assert "Warning: 1 embedding(s) were trained from other images, options or another model" in capsys.readouterr().err


def test_what_is_not_on_the_sheet_is_told(pictures, settings, tmp_path, capsys):
    jobs = [Job(settings(name="a", preview_every=6), {pictures: 1}, "tiny"), Job(settings(name="b"), {pictures: 1}, "")]
    work(TinyHost, jobs, Rules(tmp_path), lambda: False)
    show_sheets(["a", "b"], tmp_path)
    told = capsys.readouterr()
    assert told.out == f"{tmp_path / 'sheet.png'}\n"
    assert "1 embedding(s) have no previews and are not on the sheet: b." in told.err
    show_sheets(["b"], tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_fleet_trains_what_train_trains_and_the_second_time_nothing(
    fleet, pipeline_folder, pictures, tmp_path, capsys
):
    assert main(fleet("out", "--workers", "2", "--sheet")) == 0
    assert status(tmp_path / "out") == dict.fromkeys(NAMES, "done")
    one = ["train", "--model", pipeline_folder, "--images", pictures, "--name", "b", "--init", "toy", "--seed", "1"]
    quick = ["--steps", "4", "--batch-size", "2", "--device", "cpu", "--dtype", "float32", "--out", tmp_path / "one"]
    assert main([str(part) for part in [*one, *quick]]) == 0
    alone = load_file(tmp_path / "one" / "b.safetensors")["emb_params"]
    assert torch.equal(vectors(tmp_path / "out")["b"], alone)
    assert str(tmp_path / "out" / "sheet.png") in capsys.readouterr().out

    began = time.monotonic()
    assert main(fleet("out", "--workers", "2")) == 0
    assert time.monotonic() - began < 10, "no worker is started"
    assert main(["fleet", "status", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "3 of 3 done\n"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs kill -9")
def test_killed_processes_lose_nothing(fleet, tmp_path):
    """First a worker, which is replaced; then the parent, whose workers end by themselves. The rest is as it was."""
    longer = ("--steps", "60")
    assert main(fleet("undisturbed", *longer)) == 0
    parent = subprocess.Popen([sys.executable, "-m", "ti_train", *fleet("out", *longer)], cwd=ROOT)
    started = tmp_path / "out" / "a.resume"
    first = owner(tmp_path / "out" / ".fleet" / "a.claim-1", started)
    os.kill(first, signal.SIGKILL)
    started.unlink()
    second = owner(tmp_path / "out" / ".fleet" / "a.claim-2", started)
    parent.kill()
    parent.wait()
    assert main(fleet("out", *longer)) == 0
    assert not_running(second)
    assert status(tmp_path / "out") == dict.fromkeys(NAMES, "done")
    expected = vectors(tmp_path / "undisturbed")
    for name, found in vectors(tmp_path / "out").items():
        assert torch.equal(found, expected[name])
    assert not [*(tmp_path / "out").rglob("*.resume")]


def owner(claim: Path, file: Path) -> int:
    """The process of a claim, once it has written a file."""
    until = time.monotonic() + 120
    while not (claim.exists() and file.exists()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return int(json.loads(claim.read_bytes())["pid"])


def not_ignored() -> None:
    """A job in a shell's background ignores SIGINT, and so does what it starts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def not_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_all_workers_after_their_step_with_what_they_have(fleet, tmp_path, number):
    """A terminal sends them to the workers too, `kill` to the parent only."""
    command = [sys.executable, "-m", "ti_train", *fleet("out", "--steps", "5000", "--checkpoint-every", "5000")]
    parent = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=not_ignored)
    own, state = tmp_path / "out" / ".fleet", tmp_path / "out" / "a.resume"
    claim = own / "a.claim-1"
    worker = owner(claim, own / "a" / "loss.csv")
    time.sleep(1)
    for process in (parent.pid,) if number == signal.SIGTERM else (worker, parent.pid):
        os.kill(process, number)
    _, errors = parent.communicate(timeout=100)
    assert parent.returncode == 130
    assert errors.endswith("Interrupted.\n")
    assert "Traceback" not in errors
    assert not_running(worker)
    assert int(header_of(state)["step"]) < 5000, "saved after the current step"
    assert json.loads(claim.read_bytes())["released"]
    assert status(tmp_path / "out") == dict.fromkeys(NAMES, "waiting")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["embeddings", "--model", "model"], "'embeddings' is not expected after the list"),
        ([], "No model is given"),
    ],
)
def test_a_folder_that_is_not_given_as_out_is_reported(more, said, capsys):
    assert main(["fleet", "list.csv", *more]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--workers", "--together"])
@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_counts_are_at_least_one(option, number, capsys):
    with pytest.raises(SystemExit):
        main(["fleet", "list.csv", "--model", "model", option, number])
    assert f"{option}: '{number}' is not a whole number from 1" in capsys.readouterr().err


def test_status_is_a_question_also_where_a_file_is_called_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("status").mkdir()
    Ledger(tmp_path / "out").write_tables([Record("a")])
    assert main(["fleet", "status", "out"]) == 0
    assert capsys.readouterr().out == "0 of 1 done, 1 waiting\n"
    assert main(["fleet", "status"]) == 1
    assert "There is no fleet in '.'" in capsys.readouterr().err


def test_the_tables_are_written_while_it_runs(pictures, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet_command, "TABLES_EVERY", 0)
    monkeypatch.setattr(progress, "SHARE", float("inf"))  # as if writing took no time
    jobs = [Job(settings(name=name), {pictures: 1}, "tiny") for name in ("a", "b")]
    seen = []

    def engine(look) -> None:
        for job in jobs:
            work(TinyHost, [job], Rules(tmp_path), lambda: False)
            look(at_once=True)
            seen.append(status(tmp_path))

    train_all(engine, jobs, Ledger(tmp_path), Rules(tmp_path))
    assert seen == [{"a": "done", "b": "waiting"}, {"a": "done", "b": "done"}]
