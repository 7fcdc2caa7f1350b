"""A worker: opens the model once, and trains whatever of the list nobody else has taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..host import Host
from ..training.passes import ALONE, Passes
from .claims import EXPIRES, Claim, Claims
from .job_list import Job
from .learn import Evaluate, Limits, Stopped, learn
from .records import OWN, Ledger, Record
from .together import SharedPasses

AGAIN = 1.0  # seconds between two looks at what others have taken
LOST = "The worker ended without a word {} times while it trained this embedding (out of memory, or a crash)."


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
    waiting = list(jobs)
    while waiting:
        left = []  # what others have taken, and what may succeed now
        for job in waiting:
            if stop():
                return
            if rules.settles(ledger.read(job.name)):
                continue
            claim = claims.take(job.name)
            if claim is None:
                left.append(job)
                continue
            with claim.held(rules.expires):
                host = host or open_host()
                if not rules.settles(_attempt(host, job, claim, ledger, rules, stop, passes)):
                    left.append(job)
        waiting = left
        if waiting:
            sleep(AGAIN)


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
    """Trains a claimed job, and records what became of it unless it was stopped."""
    before = ledger.read(job.name)
    if rules.settles(before):  # between the first look and the claim
        return before
    attempts = before.attempts if before else 0
    if claim.after_a_loss:
        attempts += 1
        lost = Record(job.name, "failed", attempts=attempts, error=LOST.format(attempts), retry="now")
        ledger.write(lost)
        if rules.settles(lost):
            return lost
    limits = Limits(rules.time_limit, lambda: stop() or claim.lost())
    try:
        record = learn(host, job, rules.out, limits, rules.evaluate, passes)
    except Stopped:  # or taken over, since this process was asleep
        return before
    except Exception as error:
        name = type(error).__name__
        ledger.write(Record(job.name, "failed", attempts=attempts + 1, error=f"{name}: {error}", retry="now"))
        raise
    record = replace(record, attempts=attempts + 1)
    ledger.write(record)
    return record
