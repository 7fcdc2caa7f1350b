"""The engine for a Ray cluster: actors that open the model once, and train what the driver gives them.

Images and unfinished runs travel to the actors, embeddings and logs travel back: no shared folder is needed. The model
must be at the same path on every node, and so must files that `init` and `templates` name. An actor whose node dies is
replaced if the cluster has room; its embedding goes to whichever actor is free.

Ray is imported here only. It has no authentication of its own: use it in trusted networks.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomically
from ..host import Host
from ..training.checkpoint import RunFiles
from .claims import Claims
from .inputs import inputs_of
from .job_list import Job
from .learn import Limits, Stopped, learn
from .local import LOOKS_EVERY, PATIENCE, Look, OpenHost
from .records import OWN, Ledger, Record
from .worker import LOST, Rules

PACKAGE = Path(__file__).resolve().parents[1]
Files = Mapping[str, bytes]  # path below a folder -> content


class Learner:
    """The actor."""

    def __init__(self, open_host: OpenHost, device: str) -> None:
        self._host: Host = open_host(device)
        self._stop = threading.Event()

    def ready(self) -> None:
        """Answers once the model is open."""

    def stop(self) -> None:
        """Ends the current training after its step."""
        self._stop.set()

    def learn(self, job: Job, images: Sequence[Files], left: Files, rules: Rules) -> tuple[Record | None, Files]:
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
                record = learn(self._host, replace(job, folders=there), out, limits, rules.evaluate)
            except Stopped:
                return None, pack(out)
            return record, pack(out)


@dataclass(eq=False)
class Given:
    """A job that an actor has, with the driver's claim of it."""

    job: Job
    actor: Any
    claim: ExitStack


def run_ray(
    open_host: OpenHost, address: str, device: str, actors: int, jobs: Sequence[Job], rules: Rules, look: Look
) -> None:
    """Trains the jobs on a cluster, with at most `actors` models open at once; 0 = one per GPU of the cluster.

    On KeyboardInterrupt all trainings end after their step; what they have is saved here. Raises UserError.
    """
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed. Install it with: pip install ray") from None
    ray.init(address=address or None, runtime_env={"py_modules": [str(PACKAGE)]}, log_to_driver=False)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0)) if device in ("auto", "cuda") else 0
        remote = ray.remote(num_cpus=1, num_gpus=bool(gpus), max_concurrency=2)(Learner)
        driver = Driver(ray, lambda: remote.remote(open_host, device), rules)
        driver.train(jobs, actors or gpus or 1, look)
    finally:
        ray.shutdown()


class Driver:
    """Gives jobs to actors, one each, and collects what comes back."""

    def __init__(self, ray: Any, start_actor: Callable[[], Any], rules: Rules) -> None:
        self.ray, self.start_actor, self.rules = ray, start_actor, rules
        self.ledger, self.claims = Ledger(rules.out), Claims(rules.out / OWN, rules.expires)
        self.starting: dict[Any, Any] = {}  # answer of ready() -> actor
        self.running: dict[Any, Given] = {}  # answer of learn() -> what it is about
        self.idle: list[Any] = []
        self.waiting: list[Job] = []

    def train(self, jobs: Sequence[Job], actors: int, look: Look) -> None:
        """Returns when every job is settled. Raises UserError if the model cannot be opened, and KeyboardInterrupt."""
        self.waiting = list(jobs)
        for _ in range(min(actors, len(jobs))):
            self._start()
        try:
            while self.waiting or self.running:
                self.idle = [actor for actor in self.idle if not self._give(actor)]
                answers, _ = self.ray.wait([*self.starting, *self.running], timeout=LOOKS_EVERY)
                for answer in answers:
                    (self._collect if answer in self.running else self._opened)(answer)
                look()
        except KeyboardInterrupt:
            for given in self.running.values():
                given.actor.stop.remote()
            answers, _ = self.ray.wait([*self.running], num_returns=len(self.running), timeout=PATIENCE)
            for answer in answers:
                self._collect(answer)
            raise

    def _start(self) -> None:
        actor = self.start_actor()
        self.starting[actor.ready.remote()] = actor

    def _opened(self, answer: Any) -> None:
        actor = self.starting.pop(answer)
        try:
            self.ray.get(answer)
        except self.ray.exceptions.RayActorError as error:  # what its constructor raises is in the text
            raise UserError(f"A worker of the cluster cannot open the model: {error}") from None
        self.idle.append(actor)

    def _give(self, actor: Any) -> bool:
        """Gives the actor the first job that is not settled and that no other fleet has; False if there is none."""
        for job in list(self.waiting):
            if self.rules.settles(self.ledger.read(job.name)):
                self.waiting.remove(job)
            elif claim := self.claims.take(job.name):
                self.waiting.remove(job)
                held = ExitStack()
                held.enter_context(claim.held(self.rules.expires))
                files = RunFiles(self.rules.out, job.name, {})
                left = pack(self.rules.out, [files.state, files.embedding])
                images = [pack(folder) for folder in job.folders]
                self.running[actor.learn.remote(job, images, left, self.rules)] = Given(job, actor, held)
                return True
        return False

    def _collect(self, answer: Any) -> None:
        """Keeps what an actor has sent. One that has died is replaced, where the cluster has room for it."""
        given = self.running.pop(answer)
        before = self.ledger.read(given.job.name)
        attempts = (before.attempts if before else 0) + 1
        try:
            record, files = self.ray.get(answer)
            self.idle.append(given.actor)
        except self.ray.exceptions.RayError as error:
            died = isinstance(error, self.ray.exceptions.RayActorError)
            reason = LOST.format(attempts) if died else str(error).splitlines()[-1]
            record, files = Record(given.job.name, "failed", error=reason, retry="now"), {}
            self.ray.kill(given.actor)  # after an unexpected error its device may be unusable
            self._start()
        with given.claim:
            unpack(files, self.rules.out)
            if record:
                record = replace(record, attempts=attempts, inputs=inputs_of(given.job))
                self.ledger.write(record)
        if not self.rules.settles(record):
            self.waiting.append(given.job)


def pack(folder: Path, files: Sequence[Path] = ()) -> Files:
    """The visible files in a folder and below, and those of a fleet; or these files, as far as they exist."""
    found = [file for file in files or folder.rglob("*") if file.is_file()]
    parts = {file: file.relative_to(folder) for file in found}
    return {
        part.as_posix(): file.read_bytes()
        for file, part in parts.items()
        if not part.name.startswith(".") and (part.parts[0] == OWN or not part.parts[0].startswith("."))
    }


def unpack(files: Files, folder: Path) -> None:
    """Writes packed files."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
