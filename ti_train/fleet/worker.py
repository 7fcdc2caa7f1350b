"""A worker: opens the model once, and trains whatever of the list nobody else has taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..host import Host
from .claims import EXPIRES, Claim, Claims
from .jobs import Job
from .learn import Limits, Stopped, learn
from .records import OWN, Ledger, Record

AGAIN = 1.0  # seconds between two looks at what others have taken
LOST = "The worker ended without a word {} times while it trained this embedding (out of memory, or a crash)."


@dataclass(frozen=True)
class Rules:
    """How a fleet works. retries: of what may succeed at once. time_limit, expires (of claims): seconds."""

    out: Path
    retries: int = 2
    time_limit: float = 0.0
    expires: float = EXPIRES

    def settles(self, record: Record | None) -> bool:
        """Whether nothing is left to do for an embedding in this fleet."""
        if record is None or record.status in ("waiting", "running"):
            return False
        return record.status == "done" or record.retry != "now" or record.attempts > self.retries


def work(open_host: Callable[[], Host], jobs: Sequence[Job], rules: Rules, stop: Callable[[], bool]) -> None:
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
                if not rules.settles(_attempt(host, job, claim, ledger, rules, stop)):
                    left.append(job)
        waiting = left
        if waiting:
            time.sleep(AGAIN)


def _attempt(
    host: Host, job: Job, claim: Claim, ledger: Ledger, rules: Rules, stop: Callable[[], bool]
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
    try:
        record = learn(host, job, rules.out, Limits(rules.time_limit, lambda: stop() or claim.lost()))
    except Stopped:  # or taken over, since this process was asleep
        return before
    except Exception as error:
        name = type(error).__name__
        ledger.write(Record(job.name, "failed", attempts=attempts + 1, error=f"{name}: {error}", retry="now"))
        raise
    record = replace(record, attempts=attempts + 1)
    ledger.write(record)
    return record
