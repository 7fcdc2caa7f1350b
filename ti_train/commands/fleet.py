"""`fleet`: trains the embeddings of a list, on all GPUs of this machine, or of several that share a folder."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from ..data.dataset import find_pictures
from ..errors import UserError
from ..evaluation.clip import Clip, ClipJudge
from ..evaluation.evaluate import PAPERS_PROMPTS, Subject, evaluate, training_pictures
from ..evaluation.samples import Sampling
from ..evaluation.scores import Score
from ..fleet.inputs import model_identity
from ..fleet.job_list import Common, Job, read_jobs, shard_of
from ..fleet.local import Look, devices_of, run_local, when_told_to_end
from ..fleet.plan import plan
from ..fleet.progress import Tally, Throttled
from ..fleet.ray_cluster import run_ray
from ..fleet.records import IMAGE, OWN, Ledger, Record
from ..fleet.sheet import write_sheets
from ..fleet.train_job import Evaluate, Stop, Stopped
from ..fleet.worker import Rules
from ..formats import load_embedding
from ..host import Host
from ..text import Remarks, listed, printable, with_rest
from ..training.checkpoint import RunFiles
from ..training.config import MANY, PRESETS, PRESETS_HELP
from .evaluate import add_judge
from .model import MODEL, PREDICTION, PREDICTION_TYPES, used_vectors
from .option_arguments import add_options, options_given, without_effect
from .progress import StatusLine

STATUS = "status"
T = TypeVar("T")
TABLES_EVERY = 10.0  # seconds
NOT_WRITTEN = "fleet.csv and fleet.json could not be written ({}). `ti_train fleet status {}` shows what they would."
LIST = (
    "CSV or JSONL file with one embedding per line (name, init, images, preset, and any option as a column), or a "
    f"folder with one folder of images per embedding; '{STATUS}' shows the progress of the fleet in DIR"
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("fleet", help="train many embeddings from a list, on one machine or several")
    add = command.add_argument
    add("list", metavar="LIST", help=LIST)
    add("folder", metavar="DIR", nargs="?", type=Path, help=argparse.SUPPRESS)
    add("--model", type=Path, help=MODEL)
    add("--prediction-type", choices=PREDICTION_TYPES, help=PREDICTION)
    add("--out", type=Path, default=Path("."), help="folder for the results (default: this one)")
    add("--workers", type=positive, metavar="N", help="processes (default: one per GPU, or one on the CPU)")
    add("--together", type=positive, default=1, metavar="M", help="embeddings per worker that share every forward pass")
    add("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster (default: local)")
    add("--address", default="", help="of the Ray cluster, such as auto or ray://HOST:10001 (default: a local one)")
    add("--shard", default="1/1", metavar="I/N", help="train every N-th embedding of the list, from the I-th")
    add(
        "--retry",
        type=int,
        default=2,
        metavar="K",
        help="repeats of what may succeed then (default: %(default)s)",
    )
    add("--time-limit", type=float, default=0, metavar="S", help="seconds for one embedding (default: none)")
    add("--update", action="store_true", help="train again what was trained from other images or options")
    add("--sheet", action="store_true", help="sheets with an image before and after training for each embedding")
    add("--evaluate", type=int, default=0, metavar="N", help="evaluate each embedding with N samples per prompt")
    add("--threshold", type=float, default=0, metavar="X", help="report embeddings whose image similarity is below")
    add_judge(command)
    add("--preset", choices=PRESETS, default="Balanced", help=f"{PRESETS_HELP} (default: Balanced)")
    add_options(command, shared=True)
    command.set_defaults(run=run)


def positive(text: str) -> int:
    """An argument that must be 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def run(a: argparse.Namespace) -> None:
    if a.list == STATUS and (a.folder or not a.model):
        show_status(a.folder or a.out)
        return
    if a.folder:
        raise UserError(f"'{a.folder}' is not expected after the list. Give the folder for the results as --out.")
    if a.model is None:
        raise UserError("No model is given. Give it with --model.")
    check_engine(a)
    if a.threshold and not a.evaluate:
        print("Warning: --threshold needs the scores of --evaluate.", file=sys.stderr)
    options = options_given(a)
    device, dtype = a.device or "auto", a.dtype or "auto"
    if a.sheet and options["preview_every"] is None:
        options["preview_every"] = MANY  # before the first step and after the last
    model = model_identity(a.model, a.prediction_type)
    everyone = read_jobs(Path(a.list), Common(model, a.preset, options), a.out)
    jobs = shard_of(everyone, a.shard)
    for remark in without_effect(*(job.config for job in jobs)):
        print(f"Warning: {remark}", file=sys.stderr)
    ledger, rules = Ledger(a.out), Rules(a.out, a.retry, a.time_limit, together=a.together, evaluate=evaluation(a))
    for remark in plan(jobs, ledger, a.update, bool(a.evaluate)):
        print(f"Warning: {remark}", file=sys.stderr)
    open_host = partial(opened, a.model.absolute(), dtype, a.prediction_type)
    if a.engine == "ray":
        engine = partial(run_ray, open_host, a.address, device, a.workers or 0, jobs, rules)
    else:
        engine = partial(run_local, open_host, devices_of(device, a.workers or 0)[: len(jobs)], jobs, rules)
    when_told_to_end(signal.default_int_handler)
    records = train_all(engine, jobs, ledger, rules, a.threshold, everyone)
    if a.sheet:
        show_sheets([job.name for job in jobs], a.out)
    for remark in remarks_on(records, a.threshold):
        print(f"Warning: {remark}", file=sys.stderr)
    if failed := [record for record in records if record.status == "failed"]:
        reasons = [f"{record.name}: {record.error}" for record in failed]
        where = f"{len(failed)} embedding(s) failed (see '{a.out / 'fleet.csv'}'):"
        raise UserError(where, *with_rest(reasons))
    if left := [record for record in records if record.status != "done"]:
        raise UserError(f"{len(left)} embedding(s) are not trained yet. Run the same command again.")


def check_engine(a: argparse.Namespace) -> None:
    """Raises UserError for arguments that the engine does not have."""
    if a.engine != "ray" and a.address:
        raise UserError(f"--address {a.address} is of a Ray cluster. Give --engine ray too.")
    if a.engine == "ray" and a.together > 1:
        raise UserError(f"--together {a.together} does not work with --engine ray. Leave one of the two out.")


def show_sheets(names: Sequence[str], out: Path) -> None:
    """Writes the contact sheets, and prints where they are and what is not on them."""
    paths, without = write_sheets(names, out)
    for path in paths:
        print(path)
    if without:
        which = f"{len(without)} embedding(s) have no previews and are not on the sheet: {listed(without)}."
        why = "Previews are made during the training, with --sheet, and not with --preview-every 0."
        print(f"Warning: {which} {why}", file=sys.stderr)


def remarks_on(records: Sequence[Record], threshold: float) -> list[str]:
    """What a user should know of embeddings that were trained. threshold: of the image similarity."""
    low = [record.name for record in records if record.is_below(threshold)]
    remarks = [f"{record.name}: {record.error}" for record in records if record.status == "done" and record.error]
    if low:
        remarks.append(f"{len(low)} embedding(s) have an image similarity below {threshold:g}: {listed(low)}.")
    return remarks


def evaluation(a: argparse.Namespace) -> Evaluate | None:
    """What measures each embedding after its training; None if that was not asked for. Raises UserError."""
    if not a.evaluate:
        return None
    file = Path(a.clip_weights)
    weights = str(file.absolute()) if file.is_file() else a.clip_weights  # a cluster's workers have other folders
    Clip.load(a.clip_model, weights)  # now, rather than after the first training
    return partial(scores, a.clip_model, weights, a.evaluate)


@cache
def clip_of_worker(model: str, weights: str) -> Clip:
    return Clip.load(model, weights)


def scores(
    clip_model: str, clip_weights: str, number: int, host: Host, job: Job, out: Path, stop: Stop
) -> dict[str, float]:
    """Image and text similarity of a trained embedding, sampled as its previews are.

    Raises Stopped, UserError and OSError.
    """
    embedding = load_embedding(RunFiles(out, job.name, {}).embedding)
    sampling = Sampling(host.resolution, number, host.sampling.steps, host.sampling.cfg)
    pictures = training_pictures([p for folder in job.folders for p in find_pictures(folder)], sampling.side, Remarks())
    judge = ClipJudge(clip_of_worker(clip_model, clip_weights).to(host.device), pictures)
    prompts = PAPERS_PROMPTS["style" if job.config.templates.startswith("style") else "object"]
    samples = out / OWN / job.name / "samples"
    shutil.rmtree(samples, ignore_errors=True)  # of an earlier embedding of this name
    vectors, _ = used_vectors(embedding, host)
    *_, score = until(stop, evaluate(host, [Subject(job.name, vectors)], judge, prompts, sampling, samples))
    assert isinstance(score, Score)
    return {IMAGE: score.image_similarity, "text_similarity": score.text_similarity}


def until(stop: Stop, parts: Iterable[T]) -> Iterator[T]:
    """The same parts. Raises Stopped."""
    for part in parts:
        if stop():
            raise Stopped
        yield part


def train_all(
    engine: Callable[[Look], None],
    jobs: Sequence[Job],
    ledger: Ledger,
    rules: Rules,
    threshold: float = 0.0,
    everyone: Sequence[Job] = (),
) -> list[Record]:
    """Runs an engine with the progress in one line, and writes the tables meanwhile, and however it ends.

    everyone: the whole list, if the jobs are a shard of it. Raises OSError at the start: a disk that is full later must
    not hide what became of the embeddings.
    """
    own = [job.name for job in jobs]
    tally, line = Tally([job.name for job in everyone] or own, ledger, rules, own), StatusLine()
    ledger.write_tables(tally.table, threshold)
    ledger.begin(rules.retries)

    def write() -> None:
        with suppress(OSError):
            ledger.write_tables(tally.table, threshold)

    tables = Throttled(write, TABLES_EVERY)

    def look(at_once: bool = False) -> int:
        tally.look(at_once)
        line.show(tally.line())
        tables()
        return tally.progress

    try:
        if not tally.is_complete:
            engine(look)
    finally:
        tally.look(at_once=True)
        line.end(tally.line())
        try:
            ledger.write_tables(tally.table, threshold)
        except OSError as error:
            print(f"Warning: {NOT_WRITTEN.format(error.strerror or error, ledger.out)}", file=sys.stderr)
    return tally.records


def show_status(out: Path) -> None:
    """Prints how far the fleet in a folder is. Raises UserError if there is none."""
    ledger = Ledger(out)
    names = ledger.names()
    if not names:
        raise UserError(f"There is no fleet in '{out}'. Give the folder that was its --out.")
    command = ledger.command()
    rules = Rules(out, command.retries) if command else Rules(out)
    tally = Tally(names, ledger, rules, since=command.began if command else None)
    print(tally.line())
    for record in tally.records:
        if record.status == "failed":
            print(printable(f"failed: {record.name}: {record.error}"))


def opened(model: Path, dtype: str, prediction: str | None, device: str) -> Host:
    """Opens the model in a worker. Raises UserError."""
    from ..hosts.diffusers.host import DiffusersHost

    return DiffusersHost.load(model, device, dtype, prediction)
