"""Proves by abuse that no training is lost and nothing bad gets in; see docs/reliability.md for what it found.

python benchmarks/abuse.py files    every write, rename, sync and removal of a training fails, or kills it, in turn
python benchmarks/abuse.py kill     kill -9 at random moments of trainings, which are continued: of the command line,
                                    --comfyui FOLDER or --webui FOLDER
python benchmarks/abuse.py mutate   mutated files of each kind: a message for each at worst
python benchmarks/abuse.py long     a training of 100,000 steps: what grows
python benchmarks/abuse.py many --comfyui FOLDER    1,000 trainings in one server, and a queue that is cancelled by half
python benchmarks/abuse.py poll --comfyui FOLDER    20 clients that ask every second during a training: what it costs
python benchmarks/abuse.py poll --webui FOLDER      the same of a WebUI's tab and API
python benchmarks/abuse.py all      a part of each, one after another; in servers too with --comfyui and --webui

Exit status 1 if anything is wrong. All but the mutated files need Linux; the failing disk needs a C compiler too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), *(str(HERE.parent / "tests" / each) for each in ("", "comfyui", "webui"))]

from benchmarks.abuse_parts import disk  # noqa: E402
from benchmarks.abuse_parts.polling import Part, cost  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.abuse_parts.kill import Killable
    from benchmarks.abuse_parts.many import Abused

DEMO = HERE.parent / "demo"
PARTS = ("files --every 20", "kill --times 50", "mutate --count 1000", "long --steps 10000")  # of `all`
IN_COMFYUI = ("kill --times 20", "many --times 100 --queued 20", "poll --seconds 10")
IN_WEBUI = ("kill --times 10", "poll --seconds 10")


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO / "model", help="of the training (default: the demo's)")
    parser.add_argument("--images", type=Path, default=DEMO / "concepts" / "teal-heart")
    parser.add_argument("--init", default="heart", help="initial text")
    parser.add_argument("--work", type=Path, help="folder for what is trained (default: a temporary one)")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("files", help="a disk that fails at each call in turn")
    command.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth call (default: %(default)s)")
    command.add_argument("--part", type=int, default=0, metavar="K", help="of the N parts of --every, 0 to N - 1")
    command.set_defaults(run=files)
    command = commands.add_parser("kill", help="kill -9 at random moments")
    command.add_argument("--times", type=int, default=200)
    command.add_argument("--seed", type=int, default=0)
    server = command.add_mutually_exclusive_group()
    server.add_argument("--comfyui", type=Path, help="folder of a ComfyUI, whose Python is COMFYUI_PYTHON")
    server.add_argument("--webui", type=Path, help="folder of a WebUI, whose Python is WEBUI_PYTHON")
    command.set_defaults(run=kill)
    command = commands.add_parser("mutate", help="mutated files of each kind")
    command.add_argument("--count", type=int, default=10_000, help="of each kind")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--kinds", nargs="+", metavar="KIND", help="only these, such as images masks")
    command.add_argument("--save", type=Path, help="folder for inputs that fail (default: tests/corpus)")
    command.set_defaults(run=mutate)
    command = commands.add_parser("long", help="a training of very many steps")
    command.add_argument("--steps", type=int, default=100_000)
    command.set_defaults(run=long)
    command = commands.add_parser("many", help="very many trainings in one ComfyUI, whose Python is COMFYUI_PYTHON")
    command.add_argument("--comfyui", type=Path, required=True, help="folder of a ComfyUI, which is not changed")
    command.add_argument("--times", type=int, default=1000)
    command.add_argument("--queued", type=int, default=50)
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=many)
    command = commands.add_parser("poll", help="clients of a ComfyUI or a WebUI during a training")
    host = command.add_mutually_exclusive_group(required=True)
    host.add_argument("--comfyui", type=Path, help="folder of a ComfyUI, which is not changed")
    host.add_argument("--webui", type=Path, help="folder of a WebUI, whose Python is WEBUI_PYTHON; nor is this one")
    command.add_argument("--clients", type=int, default=20)
    command.add_argument("--seconds", type=float, default=30, help="of each of eight parts, with and without clients")
    command.add_argument("--requests", type=int, help="of ComfyUI: so many without a pause instead, and the memory")
    command.set_defaults(run=poll)
    command = commands.add_parser("all", help="a part of each, with its time")
    command.add_argument("--comfyui", type=Path, help="folder of a ComfyUI")
    command.add_argument("--webui", type=Path, help="folder of a WebUI")
    command.set_defaults(run=everything)
    a = parser.parse_args(given)
    if a.work:
        return int(a.run(a, a.work))
    with tempfile.TemporaryDirectory(prefix="abuse-") as work:
        return int(a.run(a, Path(work)))


def files(a: argparse.Namespace, work: Path) -> int:
    disk.on_failing_disk(work)
    from benchmarks.abuse_parts.files import every_failure, every_power_cut, files_in_use, interrupted
    from benchmarks.abuse_parts.runs import Training

    new = Training.of(a.model, a.images, a.init)
    found: list[str] = []
    trainings = {
        "a new name": new,
        "an earlier embedding": new.with_earlier(work / "other.safetensors"),
        "an interrupted run": interrupted(new, work),
    }
    for name, training in trainings.items():
        for fault, tally in every_failure(training, name, work, a.every, a.part):
            print(f"| {name} | {fault} | {tally.tried} | {tally.resumed} | {len(tally.wrong)} |", flush=True)
            found += tally.wrong
        cuts = every_power_cut(training, name, work, a.every, a.part)
        print(f"| {name} | power cut | {cuts.tried} | {cuts.resumed} | {len(cuts.wrong)} |", flush=True)
        in_use = files_in_use(training, name, work)
        print(f"| {name} | files in use are not replaced (Windows) | 1 | 0 | {len(in_use)} |", flush=True)
        found += cuts.wrong + [f"replaced in use: {each}" for each in in_use]
    return told(found)


def kill(a: argparse.Namespace, work: Path) -> int:
    from benchmarks.abuse_parts.kill import killed
    from ti_train.reproducible import EPOCH

    os.environ[EPOCH] = "86400"  # equal runs leave equal files
    trainings, found = killable(a, work), list[str]()
    for name, training in trainings.items():
        with closing(training):
            kills = killed(training, work / f"expected {name}", a.times // len(trainings), a.seed)
        print(f"| {name} | {kills.kills} kills | {kills.resumable} of them left a step to resume from "
              f"| {kills.trainings} trainings completed | {len(kills.wrong)} wrong |", flush=True)  # fmt: skip
        found += kills.wrong
    return told(found)


def killable(a: argparse.Namespace, work: Path) -> dict[str, Killable]:
    """The trainings that are killed; each gets its share of the kills."""
    if a.comfyui:
        from benchmarks.abuse_parts.in_comfyui import InComfyUI

        return {"ComfyUI": InComfyUI(a.comfyui.resolve(), work / "comfyui", a.images)}
    if a.webui:
        from benchmarks.abuse_parts.in_webui import InWebUI

        return {"WebUI": InWebUI(a.webui.resolve(), work / "webui", a.images)}
    from benchmarks.abuse_parts.runs import InFolder, Training

    new = Training.of(a.model, a.images, a.init)
    earlier = new.with_earlier(work / "other.safetensors")
    return {"a new name": InFolder(new, work / "run"), "an earlier embedding": InFolder(earlier, work / "run")}


def mutate(a: argparse.Namespace, work: Path) -> int:
    from benchmarks.abuse_parts.mutate import CORPUS, kinds, line
    from benchmarks.abuse_parts.mutate import mutate as mutated

    found: list[str] = []
    folder = work / "mutated"
    folder.mkdir()
    print("| kind | read | refused | wrong | slowest | memory |\n|---|---|---|---|---|---|")
    for kind in kinds(folder):
        if a.kinds and kind.name not in a.kinds:
            continue
        outcome = mutated(kind, folder, a.count, a.seed, a.save or CORPUS)
        print(line(kind, outcome), flush=True)
        found += outcome.wrong
    return told(found)


def long(a: argparse.Namespace, work: Path) -> int:
    from benchmarks.abuse_parts.long import grown, looks

    print("| step | memory | threads | open files | files | folder | step log | resume file |")
    print("|---|---|---|---|---|---|---|---|")
    seen = []
    for look in looks(a.model, a.images, a.init, work / "long", a.steps):
        sizes = " | ".join(f"{size // 1024:,} KiB" for size in (look.folder, look.log, look.state))
        print(f"| {look.step:,} | {look.memory:,} MiB | {look.threads} | {look.open_files} | {look.files} | {sizes} |")
        sys.stdout.flush()
        seen.append(look)
    return told(grown(seen[0], seen[-1]) if seen else [])


def many(a: argparse.Namespace, work: Path) -> int:
    from benchmarks.abuse_parts.many import Abused, State, grown, half_cancelled, one_after_another

    def shown(state: State) -> State:
        of = state.process
        print(f"| {state.trainings:,} | {of.memory:,} MiB | {of.threads} | {of.open_files} | {of.files} "
              f"| {state.objects:,} | {state.tensors:,} | {state.kept} |", flush=True)  # fmt: skip
        return state

    abused = Abused(a.comfyui.resolve(), work / "comfyui")
    try:
        abused.server.run(abused.training("reference", a.images, 20))
        before = abused.vectors("reference")
        print("| trainings | memory | threads | open files | files of records | objects | tensors | kept |")
        print("|---|---|---|---|---|---|---|---|")
        states = [shown(state) for state in one_after_another(abused, a.images, a.times)]
        found = grown(states[0], states[-1])
        ended, wrong = half_cancelled(abused, a.images, a.queued, a.seed)
        print(", ".join(f"{count} {how}" for how, count in ended.items()))
        found += wrong + grown(states[0], shown(abused.state()))
        abused.server.run(abused.training("again", a.images, 20))
        found += [] if abused.vectors("again") == before else ["the same training has another result than at first"]
    finally:
        abused.server.stop()
    return told(found)


def poll(a: argparse.Namespace, work: Path) -> int:
    if a.webui:
        return poll_webui(a, work)
    from benchmarks.abuse_parts.many import Abused
    from benchmarks.abuse_parts.poll import polled

    abused = Abused(a.comfyui.resolve(), work / "comfyui")
    try:
        if a.requests:
            return told(grown_memory(abused, a))
        return told(costs("ComfyUI", a.clients, *polled(abused, a.images, a.clients, a.seconds)))
    finally:
        abused.server.stop()


def grown_memory(abused: Abused, a: argparse.Namespace) -> list[str]:
    """Prints the server's memory after more and more requests; what is wrong."""
    from benchmarks.abuse_parts.poll import memory_after

    print("| requests | memory |\n|---|---|")
    seen = []
    for requests, memory in memory_after(abused, a.images, a.clients, a.requests):
        print(f"| {requests:,} | {memory:,} MiB |", flush=True)
        seen.append(memory)
    return [f"memory grew from {seen[1]} to {seen[-1]} MiB"] if seen[-1] > 1.05 * seen[1] else []


def poll_webui(a: argparse.Namespace, work: Path) -> int:
    from benchmarks.abuse_parts.in_webui import started
    from benchmarks.abuse_parts.poll_webui import polled

    server = started(a.webui.resolve(), work / "webui", a.images)
    try:
        found = [costs(who, a.clients, *parts) for who, *parts in polled(server, a.clients, a.seconds)]
    finally:
        server.stop()
    return told([each for wrong in found for each in wrong])


def costs(who: str, clients: int, alone: Part, asked: Part) -> list[str]:
    """Prints what clients cost a training; what is wrong."""
    print(f"{who}\n| clients | seconds | requests | steps | training | other threads |\n|---|---|---|---|---|---|")
    for there, part in ((0, alone), (clients, asked)):
        used = f"{part.trained:.2f} s | {part.served:.2f} s"
        print(f"| {there} | {part.seconds:.0f} | {part.requests:,} | {part.steps:,} | {used} |")
    each = cost(alone, asked)
    share = each * asked.requests / asked.seconds
    print(f"{1000 * each:.2f} ms of a processor for each request, {share:.2%} of a processor for all", flush=True)
    return [f"{who}: more than 1 %"] if share > 0.01 else []


def everything(a: argparse.Namespace, work: Path) -> int:
    """Each part in a process of its own, with the time that it takes."""
    parts = [part.split() for part in PARTS]
    for flag, folder, inside in (("--comfyui", a.comfyui, IN_COMFYUI), ("--webui", a.webui, IN_WEBUI)):
        parts += [[*part.split(), flag, str(folder.resolve())] for part in inside] if folder else []
    given = ["--model", a.model, "--images", a.images, "--init", a.init]
    failed = []
    for number, part in enumerate(parts):
        print(f"\n{' '.join(part)}", flush=True)
        began, folder = time.monotonic(), work / str(number)
        folder.mkdir()
        command = [sys.executable, str(HERE / "abuse.py"), *map(str, given), "--work", str(folder), *part]
        failed += [" ".join(part)] if subprocess.call(command) else []
        print(f"{(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return told([f"{part}: something is wrong" for part in failed])


def told(found: list[str]) -> int:
    """Prints what is wrong; the exit status."""
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    # of children: where other programs run, two threads take ten times as long; and poll would count the second one
    # among those that do not train
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
