"""A worker: opens the model once, and trains whatever of the list nobody else has taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..errors import BusyError
from ..host import Host
from ..training.checkpoint import RunFiles
from ..training.passes import ALONE, Passes
from .claims import BEATS, EXPIRES, Claim, Claims
from .job_list import Job
from .records import OWN, Ledger, Record
from .together import SharedPasses
from .train_job import Evaluate, Limits, Stopped, train_job

AGAIN = 1.0  # seconds between two looks at what others have taken
LOST = (
    "The worker exited without an error message {} times while it trained this embedding (out of memory, or a crash)."
)


@dataclass(frozen=True)
class Rules:
    """How a fleet works.

    retries: of what may succeed at once. time_limit: of an embedding, and expires: of claims, in seconds. together:
    trainings per worker that share their passes.
    """

    out: Path
    retries: int = 2
    time_limit: float = 0.0
    expires: float = EXPIRES
    together: int = 1
    evaluate: Evaluate | None = None

    def settles(self, record: Record | None) -> bool:
        """Whether nothing is left to do for an embedding in this fleet."""
        if record is None or record.status in ("waiting", "running"):
            return False
        return record.status == "done" or record.retry != "now" or record.attempts > self.retries


def work(
    open_host: Callable[[], Host],
    jobs: Sequence[Job],
    rules: Rules,
    stop: Callable[[], bool],
    passes: Passes = ALONE,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Returns when every job is settled, by whichever worker, or when `stop` says so.

    Raises what is no fault of an embedding, after it is recorded: the process should be replaced.
    """
    ledger, claims = Ledger(rules.out), Claims(rules.out / OWN, rules.expires)
    host: Host | None = None
    waiting = failed_last(jobs, ledger)
    while waiting:
        left, pause = [], AGAIN  # what others have taken, and what may succeed now
        for job in waiting:
            if stop():
                return
            if rules.settles(ledger.read(job.name)):
                continue
            if host is None and not claims.is_taken(job.name):
                host = open_host()  # before the claim: the embedding is not to blame if it ends the process
            claim = claims.take(job.name) if host else None
            if host is None or claim is None:
                left.append(job)
                continue
            with claim.held(rules.expires):
                try:
                    settled = rules.settles(_attempt(host, job, claim, ledger, rules, stop, passes))
                except Stopped:  # or taken over, since this process was asleep
                    settled = False
                except BusyError:
                    settled, pause = False, rules.expires / BEATS
            if not settled:
                left.append(job)
        waiting = left
        if waiting:
            sleep(pause)


def failed_last(jobs: Sequence[Job], ledger: Ledger) -> list[Job]:
    """The jobs in the order in which a worker trains them.

    One that has ended a worker may end this one too, so others come before it. Of such, one is given up before the
    next one is tried again.
    """
    records = {job.name: ledger.read(job.name) for job in jobs}
    attempts = {name: record.attempts for name, record in records.items() if record}
    return sorted(jobs, key=lambda job: (attempts.get(job.name, 0) > 0, -attempts.get(job.name, 0)))


def work_together(open_host: Callable[[], Host], jobs: Sequence[Job], rules: Rules, stop: Callable[[], bool]) -> None:
    """The same as `work`, with several trainings that share their passes. Raises what the first of them raises."""
    count = rules.together
    if count == 1:
        work(open_host, jobs, rules, stop)
        return
    shared, opened, errors = SharedPasses(count), cache(open_host), list[BaseException]()

    def member(number: int) -> None:
        with shared.member(number):
            try:
                work(opened, jobs, rules, lambda: bool(errors) or stop(), shared, shared.sleep)
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=member, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _attempt(
    host: Host, job: Job, claim: Claim, ledger: Ledger, rules: Rules, stop: Callable[[], bool], passes: Passes
) -> Record | None:
    """Trains a claimed job, and records what became of it unless another worker has taken it over.

    After a loss the job waits until all others are trained. After a failure it is trained without others. Raises
    Stopped, BusyError, and what should end the worker.
    """
    before = ledger.read(job.name)
    if rules.settles(before):  # between the first look and the claim
        return before
    attempts = before.attempts if before else 0
    if claim.lost_owner is not None:
        RunFiles(rules.out, job.name, {}).unlock(claim.lost_owner)
        attempts += 1
        lost = Record(job.name, "failed", attempts=attempts, error=LOST.format(attempts), retry="now")
        ledger.write(lost)
        return lost
    limits = Limits(rules.time_limit, lambda: stop() or claim.lost())
    try:
        record = train_job(host, job, rules.out, limits, rules.evaluate, ALONE if attempts else passes)
    except (Stopped, BusyError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        _write(Record(job.name, "failed", attempts=attempts + 1, error=reason, retry="now"), ledger, claim)
        raise
    record = replace(record, attempts=attempts + 1)
    _write(record, ledger, claim)
    return record


def _write(record: Record, ledger: Ledger, claim: Claim) -> None:
    if not claim.lost():  # else it is the other worker's
        ledger.write(record)
