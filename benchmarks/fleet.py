"""Many embeddings from a list: how many per hour, what the fleet itself costs, and what survives kill -9.

python benchmarks/fleet.py speed    [--model PATH --count 16 --steps 30 --together 1 2 4 8 --workers 1]
python benchmarks/fleet.py overhead [--count 200 --steps 12]: the fleet against the bare trainings, in as many processes
python benchmarks/fleet.py kill     [--count 200 --steps 6 --times 50]
python benchmarks/fleet.py faults   a folder that disappears, a broken image, and a full disk in the middle of a list
python benchmarks/fleet.py two      two commands at once on one folder: each embedding is trained once
python benchmarks/fleet.py many     [--count 10000]: seconds and memory per entry, with trainings of milliseconds

The embedded model and its concepts, unless --model and --images are given; --model sd15 is Stable Diffusion 1.5's shape
with random weights.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from PIL import Image
from step import sd15

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ti_train.commands.fleet import train_all  # noqa: E402
from ti_train.embedding import Embedding  # noqa: E402
from ti_train.fleet import worker  # noqa: E402
from ti_train.fleet.inputs import inputs_of  # noqa: E402
from ti_train.fleet.job_list import Common, Job, read_jobs  # noqa: E402
from ti_train.fleet.local import Look  # noqa: E402
from ti_train.fleet.plan import plan  # noqa: E402
from ti_train.fleet.records import OWN, Ledger, Record  # noqa: E402
from ti_train.fleet.worker import Rules  # noqa: E402
from ti_train.formats import save_embedding  # noqa: E402
from ti_train.host import Host  # noqa: E402
from ti_train.hosts.diffusers.host import DiffusersHost  # noqa: E402
from ti_train.training.session import Records, Session, load_dataset  # noqa: E402

DISK = 192  # KiB of the disk that gets full


def main() -> None:
    a = arguments()
    with tempfile.TemporaryDirectory() as folder:
        if str(a.model) == "sd15":
            a.model = Path(folder, "sd15")
            sd15().save_pretrained(a.model)
        {"speed": speed, "overhead": overhead, "kill": kill, "two": two, "faults": faults, "many": many}[a.part](
            a, Path(folder)
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("part", choices=("speed", "overhead", "kill", "two", "faults", "many"))
    add("--model", type=Path, default=ROOT / "demo" / "model")
    add("--images", type=Path, default=ROOT / "demo" / "concepts", help="folder with one folder per embedding")
    add(
        "--count",
        type=int,
        default=0,
        help="embeddings (default: 16, overhead and kill 200, two 20, faults 12, many 10000)",
    )
    add("--steps", type=int, default=0, help="of each (default: speed 30, overhead 12, else 6)")
    add("--times", type=int, default=50, help="kills")
    add("--pause", type=float, default=1, help="mean seconds before each, once the share of the list is finished")
    add("--seed", type=int, default=0, help="of the kills")
    add("--together", type=int, nargs="+", default=[1, 2, 4, 8])
    add("--workers", type=int, default=0, help="(default: speed 1, else 2)")
    add("--option", action="append", default=[], help="further option of the fleet, such as --option=--resolution=256")
    return parser.parse_args()


def speed(a: argparse.Namespace, folder: Path) -> None:
    """Seconds for the whole list, the start of the worker included."""
    count, steps = a.count or 16, a.steps or 30
    entries = write_list(folder, a.images, count)
    base = None
    for together in a.together:
        out = folder / f"out-{together}"
        began = time.perf_counter()
        must_pass(fleet(a, entries, out, steps, "--together", str(together), workers=a.workers or 1), out)
        seconds = time.perf_counter() - began
        records = json.loads((out / "fleet.json").read_bytes())
        trained = sum(record["seconds"] for record in records) / together
        base = base or seconds
        rate = f"{3600 * count / seconds:.0f} per hour, {base / seconds:.2f} x"
        print(f"together {together}: {count} of {steps} steps in {seconds:.1f} s: {rate}; {trained:.1f} s in steps")
    began = time.perf_counter()
    must_pass(fleet(a, entries, out, steps, workers=a.workers or 1), out)
    print(f"again, with all finished: {time.perf_counter() - began:.1f} s")


def overhead(a: argparse.Namespace, folder: Path) -> None:
    """The same trainings without claims, records and checks of the list, each process with its share of them."""
    count, steps, processes = a.count or 200, a.steps or 12, a.workers or 2
    entries = write_list(folder, a.images, count)
    context = multiprocessing.get_context("spawn")
    began = time.perf_counter()
    shares = [
        context.Process(target=bare, args=(a.model, entries, folder, steps, i, processes)) for i in range(processes)
    ]
    for process in shares:
        process.start()
    for process in shares:
        process.join()
        if process.exitcode:
            sys.exit(f"The bare trainings ended with {process.exitcode}.")
    alone = time.perf_counter() - began
    began = time.perf_counter()
    must_pass(fleet(a, entries, folder / "out", steps), folder / "out")
    seconds = time.perf_counter() - began
    rate = f"{3600 * count / seconds:.0f} per hour"
    print(f"{count} of {steps} steps: bare {alone:.1f} s, fleet {seconds:.1f} s ({seconds / alone - 1:+.1%}), {rate}")
    began = time.perf_counter()
    must_pass(fleet(a, entries, folder / "out", steps), folder / "out")
    print(f"again, with all finished: {time.perf_counter() - began:.1f} s")


def bare(model: Path, entries: Path, folder: Path, steps: int, first: int, every: int) -> None:
    """Every `every`-th training of the list, from the first."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // every))
    host = DiffusersHost.load(model)
    options = {"steps": steps, "checkpoint_every": 2}
    for job in read_jobs(entries, Common(model.name, "Balanced", options))[first::every]:
        dataset = load_dataset(host, job.folders, job.config, [])
        for _ in Session(job.config, folder / "bare", Records.in_own_folder(folder / job.name)).train(host, dataset):
            pass


def kill(a: argparse.Namespace, folder: Path) -> None:
    """Kills a random worker, or the parent, at random moments over the whole run; all files must be as if undisturbed.

    The moments are spread over the list, so that all kills happen.
    """
    count, steps, chance = a.count or 200, a.steps or 6, random.Random(a.seed)
    entries = write_list(folder, a.images, count)
    must_pass(fleet(a, entries, folder / "calm", steps), folder / "calm")
    out, killed = folder / "killed", {"worker": 0, "parent": 0}
    running = fleet(a, entries, out, steps)
    for number in range(a.times):
        while finished(out) < (count - 2) * number / a.times or not workers(running.pid):
            if running.poll() is not None:
                sys.exit(
                    f"The fleet ended with {running.returncode} after {killed}, {finished(out)} of {count} finished."
                )
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2 * a.pause))
        if running.poll() is not None:
            sys.exit(f"The fleet ended before kill {number + 1} of {a.times}. Give more --count or a shorter --pause.")
        living = workers(running.pid)
        what = "parent" if chance.random() < 0.2 or not living else "worker"
        os.kill(running.pid if what == "parent" else chance.choice(living), signal.SIGKILL)
        killed[what] += 1
        if what == "parent":
            running.wait()
            running = fleet(a, entries, out, steps)
    codes = [running.wait(), fleet(a, entries, out, steps).wait()]
    pairs = [(folder / "calm" / name, out / name) for name in (f"w{i}.safetensors" for i in range(count))]
    equal = sum(file.exists() and calm.read_bytes() == file.read_bytes() for calm, file in pairs)
    print(
        f"killed {killed}: exit {codes}, {equal} of {count} equal to the undisturbed fleet's, "
        f"leftovers {leftovers(out)}"
    )
    if equal < count or any(codes) or leftovers(out) or not all(killed.values()):
        sys.exit(1)


def two(a: argparse.Namespace, folder: Path) -> None:
    count, steps = a.count or 20, a.steps or 6
    entries = write_list(folder, a.images, count)
    both = [fleet(a, entries, folder / "out", steps, workers=1) for _ in range(2)]
    codes = [process.wait() for process in both]
    claims, done = len([*(folder / "out" / OWN).glob("*.claim-*")]), finished(folder / "out")
    shares = Counter(record["worker"] for record in json.loads((folder / "out" / "fleet.json").read_bytes()))
    print(f"exit {codes}, {count} embeddings, {claims} claims, {done} finished, shares {[*shares.values()]}")
    if any(codes) or claims != count or done != count or len(shares) != 2:
        sys.exit(1)


def faults(a: argparse.Namespace, folder: Path) -> None:
    """What cannot be trained costs the others nothing, and the table says why; what is mended is trained then.

    The full disk needs Linux and root.
    """
    count, steps, out = a.count or 12, a.steps or 6, folder / "out"
    out.mkdir()
    entries = write_list(folder, a.images, count, copied=True)
    broken, lost = folder / "images-3", folder / "images-7"
    good = {file: file.read_bytes() for file in broken.iterdir()}
    for file in good:
        file.write_bytes(b"no image")
    running = fleet(a, entries, out, steps)
    while not (out / "fleet.json").exists():  # written when the list is checked
        time.sleep(0.1)
    lost.rename(folder / "elsewhere")
    told(out, "broken images, and a folder that disappears", running.wait())
    for file, data in good.items():
        file.write_bytes(data)
    (folder / "elsewhere").rename(lost)
    told(out, "the same command after both are mended", fleet(a, entries, out, steps).wait(), whole=True)
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}k", "tmpfs", small], check=True)
    try:
        told(small, f"a disk of {DISK} KiB", fleet(a, entries, small, steps).wait())
        subprocess.run(["mount", "-o", "remount,size=1g", small], check=True)
        told(small, "the same command after there is room", fleet(a, entries, small, steps).wait(), whole=True)
    finally:
        subprocess.run(["umount", small], check=True)


def told(out: Path, what: str, code: int, whole: bool = False) -> None:
    """Prints what became of a fleet. whole: exits unless all is trained and nothing is left over."""
    ledger = Ledger(out)
    records = [ledger.read(name) or Record(name) for name in ledger.names()]
    counts = Counter(record.status for record in records)
    print(f"{what}: exit {code}, {dict(counts)}, leftovers {leftovers(out)}")
    for record in records:
        if record.status == "failed":
            print(f"  {record.name} (retry {record.retry}): {record.error}")
    if whole and (code or {*counts} != {"done"} or leftovers(out)):
        sys.exit(1)


def many(a: argparse.Namespace, folder: Path) -> None:
    """All that a fleet does but the training: the list, the plan, claims, records, progress and tables.

    What stands for a training takes milliseconds; it writes an embedding.
    """
    images = folder / "images"
    images.mkdir()
    Image.new("RGB", (32, 32), (200, 40, 40)).save(images / "red.png")
    for count in (a.count // 10 or 1000, a.count or 10_000):
        (folder / "list.csv").write_text("\n".join(["name,init,images", *(f"w{i},toy,images" for i in range(count))]))
        out, began = folder / str(count), time.perf_counter()
        rules, ledger = Rules(out), Ledger(out)
        jobs = read_jobs(folder / "list.csv", Common("tiny", "Balanced", {}))
        plan(jobs, ledger, update=False)
        ready = time.perf_counter()
        with patch.object(worker, "learn", simulated):
            train_all(partial(one_worker, jobs, rules), jobs, ledger, rules)
        trained = time.perf_counter()
        plan(jobs, ledger, update=False)
        train_all(lambda _: None, jobs, ledger, rules)
        again = time.perf_counter() - trained
        memory, steps = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, trained - ready
        each = f"list {1000 * (ready - began) / count:.2f} ms each, training {1000 * steps / count:.1f} ms each"
        print(f"{count} entries: {each}, again {again:.1f} s, {memory:.0f} MiB, {finished(out)} finished")
        if finished(out) != count:
            sys.exit(1)


def one_worker(jobs: Sequence[Job], rules: Rules, look: Look) -> None:
    """An engine in this process, which looks at the progress as often as it asks whether to stop."""
    worker.work(MagicMock, jobs, rules, lambda: look() < 0)


def simulated(_host: Host, job: Job, out: Path, *_: Any) -> Record:
    save_embedding(Embedding(job.name, {"clip_l": torch.zeros(1, 768)}), out / f"{job.name}.safetensors")
    return Record(job.name, "done", steps=1, kept=1, inputs=inputs_of(job))


def write_list(folder: Path, images: Path, count: int, copied: bool = False) -> Path:
    """copied: each entry has a folder of its own, images-0 and so on."""
    concepts = sorted(path for path in images.iterdir() if path.is_dir())
    folders = [concepts[i % len(concepts)] for i in range(count)]
    if copied:
        folders = [shutil.copytree(source, folder / f"images-{i}") for i, source in enumerate(folders)]
    rows = [f"w{i},toy,{source},{i}" for i, source in enumerate(folders)]
    (folder / "list.csv").write_text("\n".join(["name,init,images,seed", *rows]), encoding="utf-8")
    return folder / "list.csv"


def fleet(
    a: argparse.Namespace, entries: Path, out: Path, steps: int, *more: str, workers: int = 0
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ti_train", "fleet", entries, "--model", a.model, "--out", out, "--steps", steps]
    given = ["--workers", workers or a.workers or 2, "--checkpoint-every", 2, *more, *a.option]
    environment = os.environ | {"SOURCE_DATE_EPOCH": "0"}  # equal runs leave equal files
    with log_of(out).open("ab") as log:
        return subprocess.Popen([*map(str, command), *map(str, given)], cwd=ROOT, stderr=log, env=environment)


def log_of(out: Path) -> Path:
    """What the fleets with this folder have printed."""
    return out.with_name(f"{out.name}.log")


def must_pass(running: subprocess.Popen[bytes], out: Path) -> None:
    """Waits for a fleet; exits with what it printed if it failed."""
    if code := running.wait():
        sys.exit(f"The fleet ended with {code}:\n{log_of(out).read_text(encoding='utf-8')[-2000:]}")


def finished(out: Path) -> int:
    ledger = Ledger(out)
    return sum(record is not None and record.status == "done" for record in map(ledger.read, ledger.names()))


def workers(parent: int) -> list[int]:
    """The worker processes of a fleet, on Linux."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = process.joinpath("stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z" and b"spawn_main" in process.joinpath("cmdline").read_bytes():
                found.append(int(process.name))
        except (OSError, ValueError):
            continue
    return found


def leftovers(out: Path) -> list[str]:
    """Files that a finished fleet should not have left: states, locks, half-written files."""
    patterns = ("*.resume", ".*.lock", ".*.json.*", ".*.safetensors.*")
    return [file.relative_to(out).as_posix() for pattern in patterns for file in out.rglob(pattern)]


if __name__ == "__main__":
    main()
