"""Every change of a file fails, or is the last one before the process dies; then the run is continued to its end."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import disk, verdict
from .power import folders_after_a_cut
from .runs import NAME, Training, embedding_in, put_back


@dataclass
class Tally:
    """tried: how often. wrong: what was found, with where."""

    tried: int = 0
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)


def undisturbed(training: Training, folder: Path, record: Path, as_windows: bool = False) -> list[disk.Call]:
    """The calls of a whole run into a folder."""
    training.begun(folder)
    with record.open("wb") as file:
        ended = training.run(folder, lambda: disk.watch(folder, file, as_windows))
    if ended.status:
        raise SystemExit(f"The run does not even work undisturbed:\n{ended.said}")
    return list(disk.recorded(record))


def interrupted(training: Training, work: Path) -> Training:
    """The same, of which half the changes of files are made, and which is resumed."""
    calls, folder = undisturbed(training, work / "whole", work / "record"), training.begun(work / "interrupted")

    def armed() -> None:
        disk.watch(folder)
        disk.fail(len(calls) // 2, "killed")

    training.run(folder, armed)
    if not (folder / f"{NAME}.resume").exists():
        raise SystemExit("The run that was killed left nothing to resume from.")
    return replace(training, interrupted=folder)


def every_failure(training: Training, name: str, work: Path, every: int, part: int) -> Iterator[tuple[str, Tally]]:
    """Fault -> what came of it, one after another. every: 1 tries all calls, 7 a seventh of them, part 0 to 6."""
    expected = work / f"expected {name}"
    calls = undisturbed(training, expected, work / "record")
    print(f"{name}: {len(calls)} changes of files ({counted(calls)})", flush=True)
    for number, fault in enumerate(disk.FAULTS):
        tally = Tally()
        torn = fault == "killed inside a write"
        suitable = [call for call in range(1, len(calls) + 1) if not torn or calls[call - 1].kind == "write"]
        for call in suitable[(number + part) % every :: every]:
            wrong = failed(training, work / "run", expected, call, fault, tally)
            where = f"{calls[call - 1].kind} {call} of {calls[call - 1].path.name}"
            kept = f"left behind: {calls[call - 1].path.name}" if calls[call - 1].kind == "unlink" else ""
            tally.wrong += [f"{fault}, {where}: {each}" for each in wrong if each != kept]  # a lock that locks nothing
        yield fault, tally


def failed(training: Training, folder: Path, expected: Path, call: int, fault: str, tally: Tally) -> list[str]:
    """What is wrong after a run whose `call`th call failed, and after it was continued."""
    training.begun(folder)
    refuges = folder.with_name("refuges")  # where a run is saved whose disk is full
    refuges.mkdir(exist_ok=True)
    action, _ = disk.FAULTS[fault]

    def armed() -> None:
        tempfile.tempdir = str(refuges)
        disk.watch(folder)
        disk.fail(call, fault)

    result = embedding_in(expected).read_bytes()
    ended = training.run(folder, armed)
    wrong = verdict.after_a_failure(ended, folder, training.earlier, result, clean=action == disk.ONCE)
    put_back(ended.said, folder)
    tally.tried += 1
    if ended.status:
        before = verdict.unfinished(training.interrupted) if training.interrupted else []
        wrong = [each for each in wrong if each not in (f"left behind: {name}" for name in before)]  # by the kill
        tally.resumed += 1
        whole = action in (disk.KILL, disk.TORN)
        wrong += verdict.after_all(training.run(folder), folder, expected, log=whole, shown=whole)
    left = sorted(path.name for path in refuges.iterdir())
    shutil.rmtree(refuges)
    return wrong + [f"left in the temporary folder: {name}" for name in left]


def every_power_cut(training: Training, name: str, work: Path, every: int, part: int) -> Tally:
    """What is wrong in the folders that a power cut may leave. every: the Nth of a part are continued."""
    expected, folder, tally = work / f"expected {name}", work / "run", Tally()
    calls = undisturbed(training, expected, work / "record")
    before = verdict.contents(training.begun(folder))
    result = embedding_in(expected).read_bytes()
    for number, there in folders_after_a_cut(calls, expected, before):
        shutil.rmtree(folder)
        for path, data in there.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        folder.mkdir(exist_ok=True)
        wrong = verdict.after_a_cut(folder, training, result)
        tally.tried += 1
        if tally.tried % every == part and contents_differ(folder, expected):
            tally.resumed += 1
            wrong += verdict.after_all(training.run(folder), folder, expected, log=False)
        where = f"power cut after {calls[number - 1].kind} {number} of {calls[number - 1].path.name}"
        tally.wrong += [f"{where}: {each}" for each in wrong]
    return tally


def contents_differ(folder: Path, expected: Path) -> bool:
    """Whether there is anything left to do: a finished run's name is taken."""
    return (folder / f"{NAME}.resume").exists() or verdict.contents(folder).keys() != verdict.contents(expected).keys()


def files_in_use(training: Training, name: str, work: Path) -> list[str]:
    """Which files were replaced or removed while this process had them open or mapped, which Windows refuses.

    Not the lock, which is closed before it is removed there.
    """
    calls = undisturbed(training, work / f"windows {name}", work / "record", as_windows=True)
    return [f"{call.path.name} {call.other}" for call in calls if call.kind == "in use" and call.path.suffix != ".lock"]


def counted(calls: list[disk.Call]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in Counter(call.kind for call in calls).most_common())
