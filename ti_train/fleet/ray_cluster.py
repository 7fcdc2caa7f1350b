"""The engine for a Ray cluster: actors that open the model once, and train what the driver gives them.

Images and unfinished runs travel to the actors, embeddings and logs travel back: no shared folder is needed. The model
must be at the same path on every node, and so must the other files that options name. An actor whose node dies is
replaced if the cluster has room; its embedding goes to whichever actor is free.

Ray is imported here only. Unless its users set it up, it has no authentication: use it in trusted networks.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomically
from ..host import Host
from ..training.belongings import belongings
from ..training.checkpoint import RunFiles
from .claims import Claim, Claims
from .inputs import image_files, inputs_of
from .job_list import Job
from .local import LOOKS_EVERY, PATIENCE, Look, OpenHost
from .records import OWN, Ledger, Record
from .sheet import records_of
from .train_job import Limits, Stopped, train_job
from .worker import LOST, Rules

PACKAGE = Path(__file__).resolve().parents[1]
MOST_LOST = 3  # actors that may be lost while they open the model, for each one that is wanted
NO_RAY = 'Ray is not installed. It is the extra "fleet": in the folder of ti-train, run pip install ".[fleet]"'
Files = Mapping[str, bytes]  # path below a folder -> content
Start = Callable[[], tuple[Any, Any]]  # an actor, and the answer that it gives when its model is open


class Trainer:
    """The actor."""

    _host: Host

    def __init__(self) -> None:
        self._stop = threading.Event()

    def open(self, open_host: OpenHost, device: str) -> None:
        """Opens the model. An error of the constructor would look like the loss of a node. Raises UserError."""
        self._host = open_host(device)

    def stop(self) -> None:
        """Ends the current training after its step."""
        self._stop.set()

    def train(self, job: Job, images: Sequence[Files], left: Files, rules: Rules) -> tuple[Record | None, Files]:
        """Trains a job in a temporary folder; returns its record, None if it was stopped, and all that it wrote.

        images: of each of the job's folders. left: what an interrupted run has left in the driver's folder.
        """
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out")
            there = {Path(folder, str(i)): times for i, times in enumerate(job.folders.values())}
            for place, files in zip((*there, out), (*images, left), strict=True):
                unpack(files, place)
            try:
                limits = Limits(rules.time_limit, self._stop.is_set)
                record = train_job(self._host, replace(job, folders=there), out, limits, rules.evaluate)
            except Stopped:
                record = None
            return record, pack(out, [file for file in out.rglob("*") if not file.name.startswith(".")])


@dataclass(eq=False)
class Given:
    """A job that an actor has, with the driver's claim of it, and what the actor was sent."""

    job: Job
    actor: Any
    claim: Claim
    held: ExitStack
    left: Files
    inputs: dict[str, Any]


def run_ray(
    open_host: OpenHost, address: str, device: str, actors: int, jobs: Sequence[Job], rules: Rules, look: Look
) -> None:
    """Trains the jobs on a cluster, with at most `actors` models open at once; 0 = one per GPU of the cluster.

    However it ends, all trainings end after their step, and what they have is saved here. Raises UserError and OSError.
    """
    try:
        import ray
    except ImportError:
        raise UserError(NO_RAY) from None
    ray.init(address=address or None, runtime_env={"py_modules": [str(PACKAGE)]}, log_to_driver=False)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0)) if device in ("auto", "cuda") else 0
        remote = ray.remote(num_cpus=1, num_gpus=bool(gpus), max_concurrency=2)(Trainer)

        def start() -> tuple[Any, Any]:
            actor = remote.remote()
            return actor, actor.open.remote(open_host, device)

        Driver(ray, start, rules).train(jobs, actors or gpus or 1, look)
    finally:
        ray.shutdown()


class Driver:
    """Gives jobs to actors, one each, and collects what comes back."""

    def __init__(self, ray: Any, start: Start, rules: Rules) -> None:
        self.ray, self.start, self.rules = ray, start, rules
        self.ledger, self.claims = Ledger(rules.out), Claims(rules.out / OWN, rules.expires)
        self.starting: dict[Any, Any] = {}  # answer of open() -> actor
        self.running: dict[Any, Given] = {}  # answer of train() -> what it is about
        self.idle: list[Any] = []
        self.waiting: list[Job] = []
        self.lost = 0  # actors while they opened the model, since an embedding came back

    def train(self, jobs: Sequence[Job], actors: int, look: Look) -> None:
        """Returns when every job is settled. Raises UserError if the model cannot be opened, and OSError."""
        self.waiting = list(jobs)
        try:
            while self.waiting or self.running:
                self._start(min(actors, len(self.waiting) + len(self.running)))
                self.idle = [actor for actor in self.idle if not self._give(actor)]
                for answer in self._answers(LOOKS_EVERY):
                    (self._collect if answer in self.running else self._opened)(answer)
                if self.lost > MOST_LOST * actors:
                    raise UserError(f"{self.lost} workers of the cluster were lost while they opened the model.")
                look()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        """Ends all trainings after their step, and keeps what they have."""
        for given in self.running.values():
            given.actor.stop.remote()
        self.starting.clear()
        until = time.monotonic() + PATIENCE
        while self.running and time.monotonic() < until:
            for answer in self._answers(LOOKS_EVERY):
                with suppress(OSError):  # the reason why all ends
                    self._collect(answer)

    def _answers(self, seconds: float) -> Sequence[Any]:
        """What actors have answered, after this time at most."""
        pending = [*self.starting, *self.running]
        if not pending:  # other fleets have what is left
            time.sleep(seconds)
            return ()
        answers: Sequence[Any] = self.ray.wait(pending, num_returns=1, timeout=seconds)[0]
        return answers

    def _start(self, wanted: int) -> None:
        """Starts the actors that are missing: at first, and after a loss."""
        for _ in range(wanted - len(self.starting) - len(self.running) - len(self.idle)):
            actor, opened = self.start()
            self.starting[opened] = actor

    def _opened(self, answer: Any) -> None:
        actor = self.starting.pop(answer)
        try:
            self.ray.get(answer)
            self.idle.append(actor)
        except self.ray.exceptions.RayTaskError as error:
            raise UserError(f"A worker of the cluster cannot open the model: {error.cause}") from None
        except self.ray.exceptions.RayActorError:
            self.lost += 1

    def _give(self, actor: Any) -> bool:
        """Gives the actor the first job that is not settled and that no other fleet has; False if there is none."""
        for job in list(self.waiting):
            if self.rules.settles(self.ledger.read(job.name)):
                self.waiting.remove(job)
            elif claim := self.claims.take(job.name):
                self.waiting.remove(job)
                held = ExitStack()
                held.enter_context(claim.held(self.rules.expires))
                try:
                    images = [pack(folder, image_files(folder)) for folder in job.folders]
                    given = Given(job, actor, claim, held, packed_run(self.rules.out, job.name), inputs_of(job))
                except (UserError, OSError) as error:  # an image or a folder that cannot be read
                    with held:
                        attempts = self._attempts(job) + 1
                        record = Record(job.name, "failed", attempts=attempts, error=str(error), retry="later")
                        self.ledger.write(record)
                    continue
                self.running[actor.train.remote(job, images, given.left, self.rules)] = given
                return True
        return False

    def _collect(self, answer: Any) -> None:
        """Keeps what an actor has sent, unless another fleet has taken the embedding over meanwhile. Raises OSError."""
        given = self.running.pop(answer)
        attempts = self._attempts(given.job) + 1
        record: Record | None
        with given.held:
            try:
                record, files = self.ray.get(answer)
                self.idle.append(given.actor)
                self.lost = 0
                if given.claim.lost():
                    record = None
                else:
                    keep(files, given.left, self.rules.out)
            except self.ray.exceptions.RayError as error:
                died = isinstance(error, self.ray.exceptions.RayActorError)
                reason = LOST.format(attempts) if died else str(error).splitlines()[-1]
                record = Record(given.job.name, "failed", error=reason, retry="now")
                self.ray.kill(given.actor)  # after an unexpected error its device may be unusable
            except OSError as error:  # a full disk
                record = Record(given.job.name, "failed", error=str(error), retry="later")
            if record:
                record = replace(record, attempts=attempts, inputs=given.inputs)
                self.ledger.write(record)
        if not self.rules.settles(record):
            self.waiting.append(given.job)

    def _attempts(self, job: Job) -> int:
        before = self.ledger.read(job.name)
        return before.attempts if before else 0


def packed_run(out: Path, name: str) -> Files:
    """What earlier runs of a name have left in the driver's folder, which a further one continues or must respect."""
    embedding = RunFiles(out, name, {}).embedding
    found = [*belongings(embedding)] if embedding.parent.is_dir() else []
    folders = [file for folder in found if folder.is_dir() for file in folder.iterdir()]
    return pack(out, [*found, *folders, records_of(out, name).log])


def pack(folder: Path, files: Iterable[Path]) -> Files:
    """Files in a folder and below, as far as they exist."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files if file.is_file()}


def unpack(files: Files, folder: Path) -> None:
    """Writes packed files. Raises OSError."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)


def keep(files: Files, sent: Files, out: Path) -> None:
    """Makes the driver's folder what an actor's has become. sent: what it was for this embedding. Raises OSError."""
    unpack({name: content for name, content in files.items() if sent.get(name) != content}, out)
    for name in sent.keys() - files.keys():
        (out / name).unlink(missing_ok=True)
