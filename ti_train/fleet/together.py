"""Several trainings that share their forward and backward passes.

The model is frozen, and the gradient of a sample reaches its own embedding only. So the micro-batches of several
trainings can be one batch, while each keeps its own optimizer, noise, schedule and files. Sums within the network may
round differently in a larger batch; nothing else changes.

Each training runs in a thread, and only one thread runs at a time: it gives its turn away where it waits, at a backward
pass until all others are there too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from traceback import clear_frames

import torch
from torch import Tensor

from ..host import Host, Prompt, Slot
from ..training.determinism import deterministic
from ..training.micro_batches import MicroBatch
from ..training.passes import Work, differentiable

Weighted = tuple["Ticket", MicroBatch, Tensor]


@dataclass(eq=False)
class Ticket:
    """A step that waits for its passes. member: the number of its training, from 0."""

    member: int
    host: Host
    work: Work
    losses: list[Tensor]
    is_done: bool = False
    error: BaseException | None = None

    def named(self, name: str) -> str:
        """A name of this training's embedding, among those of all."""
        return f"{self.member}:{name}"

    def prompt(self, prompt: Prompt) -> Prompt:
        return tuple(Slot(self.named(piece.name)) if isinstance(piece, Slot) else piece for piece in prompt)


class SharedPasses:
    """The passes of several trainings on one host; see passes.Passes."""

    def __init__(self, members: int) -> None:
        self._turn = threading.Condition()
        self._members = members
        self._waiting: list[Ticket] = []
        self._own = threading.local()

    @contextmanager
    def member(self, number: int) -> Iterator[None]:
        """Within it, the calling thread is one of the members that this was made for."""
        with self._turn:
            self._own.number = number
            try:
                yield
            finally:
                self._leave()

    def sleep(self, seconds: float) -> None:
        """Leaves the others to themselves for a while."""
        self._leave()
        self._turn.release()
        try:
            time.sleep(seconds)
        finally:
            self._turn.acquire()
            self._members += 1

    def backward(self, host: Host, work: Work) -> Tensor:
        ticket = Ticket(self._own.number, host, work, [])
        self._waiting.append(ticket)
        self._pass_if_complete()
        while not ticket.is_done:
            self._turn.wait()
        if ticket.error:
            raise ticket.error
        return torch.stack(ticket.losses).sum()

    def _leave(self) -> None:
        self._members -= 1
        self._pass_if_complete()

    def _pass_if_complete(self) -> None:
        """Computes the waiting steps if no member is missing."""
        if not self._waiting or len(self._waiting) < self._members:
            return
        waiting, self._waiting = sorted(self._waiting, key=lambda ticket: ticket.member), []
        for exact in (False, True):  # slower, and not possible on every device: only for those that want it
            if tickets := [ticket for ticket in waiting if ticket.work.config.deterministic is exact]:
                try:
                    backward_together(tickets, exact)
                except BaseException as error:  # each training decides what to do about it
                    clear_frames(error.__traceback__)  # of their tensors: errors are kept
                    for ticket in tickets:
                        ticket.error = error
        for ticket in waiting:
            ticket.is_done = True
        self._turn.notify_all()


def backward_together(tickets: Sequence[Ticket], exact: bool) -> None:
    """The gradients and losses of several steps, in as few passes as the largest of them needs.

    exact: in PyTorch's deterministic mode.
    """
    host, works = tickets[0].host, [ticket.work for ticket in tickets]
    checkpointing = any(work.config.gradient_checkpointing for work in works)
    with host.training(checkpointing, sum(work.memory for work in works)), deterministic(exact):
        embeddings = {t: t.work.embeddings() for t in tickets}
        named = {t.named(name): vectors for t in tickets for name, vectors in embeddings[t].items()}
        for group in joint_batches(tickets):
            losses = joined(group).losses(host, named).split([len(weights) for _, _, weights in group])
            total = []
            for (ticket, _, weights), own in zip(group, losses, strict=True):
                loss = differentiable((own * weights).sum())
                total.append(loss * ticket.work.scale)
                ticket.losses.append(loss.detach())
            torch.stack(total).sum().backward()
        for ticket in tickets:
            for term in ticket.work.terms(embeddings[ticket]):
                (term * ticket.work.scale).backward()


def joint_batches(tickets: Sequence[Ticket]) -> Iterator[list[Weighted]]:
    """Micro-batches to compute as one: at most one of each training, all of one shape."""
    parts = [[(t, *pair) for pair in zip(t.work.parts, t.work.weights, strict=True)] for t in tickets]
    for row in zip_longest(*parts):
        shapes: dict[torch.Size, list[Weighted]] = {}
        for weighted in filter(None, row):
            shapes.setdefault(weighted[1].x0.shape[1:], []).append(weighted)
        yield from shapes.values()


def joined(group: Sequence[Weighted]) -> MicroBatch:
    """The micro-batches as one, with the embeddings in its prompts under the names of all trainings."""
    parts = [part for _, part, _ in group]
    return MicroBatch(
        torch.cat([part.x0 for part in parts]),
        torch.cat([part.noise for part in parts]),
        torch.cat([part.sigma for part in parts]),
        torch.cat([part.weights for part in parts]),
        [ticket.prompt(prompt) for ticket, part, _ in group for prompt in part.prompts],
        [size for part in parts for size in part.sizes],
    )
