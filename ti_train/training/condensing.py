"""Condensing: initial vectors that are fewer than the tokens of their text, found through the text encoders alone.

The mean of a text's rows (`condensed` in embedding.py) is nobody's word. With the vectors found here, prompts condition
the denoiser nearly as they do with the text. It takes MOST forward and backward passes of the text encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from ..host import Host, Prompt, Slot, TextStates, Vectors
from ..prompts import PLACEHOLDER

# before and behind the vectors, at the end of a prompt and within it: what stands behind reads them in two ways
TEXTS = (("a photo of a ", ""), ("a ", " on a table, close-up"))
PROMPTS: list[Prompt] = [(before, Slot(PLACEHOLDER), behind) for before, behind in TEXTS]
MOST = 20  # evaluations, each a forward and a backward pass with all prompts
FLAT = 1e-3  # L-BFGS ends with a step that changes the sum of the shares, or each coordinate's, by no more


@dataclass(frozen=True)
class Condensed:
    """vectors: encoder -> [n, width]. shares: encoder -> their distance from the text, as a share of the start's."""

    vectors: dict[str, Tensor]
    shares: dict[str, float]


class Stopped(Exception):  # noqa: N818
    """The user wants no more evaluations."""


def condense(host: Host, text: Vectors, start: Vectors, stop: Callable[[], bool] = lambda: False) -> Condensed:
    """Vectors with which prompts condition as they do with the text; for no encoder farther from it than the start.

    text: encoder -> the rows of its tokens, [tokens, width]; start: encoder -> [n, width], searched for those with
    fewer vectors than tokens. L-BFGS on the sum of the encoders' distances, of which none depends on another's vectors.
    """
    text, start = ({e: v.to(host.device, torch.float32) for e, v in part.items()} for part in (text, start))
    searched = [encoder for encoder in start if len(start[encoder]) < len(text[encoder])]
    best, shares = dict(start), dict.fromkeys(searched, 1.0)
    if not searched:
        return Condensed(dict(start), {})
    with host.training():
        with torch.no_grad():
            wanted = host.conditioning(PROMPTS, {PLACEHOLDER: text})
            first = distances(host, wanted, start, searched)
        # coordinates in units of the start's norm, so that steps suit every encoder's table
        units = {encoder: start[encoder].norm().clamp_min(1e-12) for encoder in searched}
        leaves = {encoder: (start[encoder] / units[encoder]).requires_grad_() for encoder in searched}
        optimizer = torch.optim.LBFGS(
            leaves.values(), max_iter=MOST, max_eval=MOST, tolerance_change=FLAT, line_search_fn="strong_wolfe"
        )

        def evaluated() -> Tensor:
            if stop():
                raise Stopped
            optimizer.zero_grad()
            vectors = start | {encoder: leaf * units[encoder] for encoder, leaf in leaves.items()}
            now = {e: d / first[e].clamp_min(1e-12) for e, d in distances(host, wanted, vectors, searched).items()}
            for encoder, share in now.items():
                if float(share.detach()) < shares[encoder]:
                    shares[encoder], best[encoder] = float(share.detach()), vectors[encoder].detach()
            total = torch.stack(list(now.values())).sum()
            total.backward()
            return total.detach()

        with suppress(Stopped):
            optimizer.step(evaluated)
    return Condensed({encoder: v.cpu().clone() for encoder, v in best.items()}, shares)


def distances(
    host: Host, wanted: Mapping[str, list[TextStates]], vectors: Vectors, encoders: list[str]
) -> dict[str, Tensor]:
    """Encoder -> mean over the prompts of the distance between the vectors' states and the wanted ones, a scalar."""
    found = host.conditioning(PROMPTS, {PLACEHOLDER: vectors})
    means = {}
    for encoder in encoders:
        tokenize = host.vocabulary(encoder).tokenize
        counts = [len(tokenize(behind)) + 1 for _, behind in TEXTS]  # with the end of the text
        each = map(distance, found[encoder], wanted[encoder], counts)
        means[encoder] = torch.stack(list(each)).mean()
    return means


def distance(found: TextStates, wanted: TextStates, behind: int) -> Tensor:
    """Squared distance of what stands behind the slot, plus that of the pooled outputs, each relative to its size.

    behind: tokens from the slot to the end of the text. Their states are compared token by token, though they stand at
    other places; those of the padding place by place, or token by token too where prompts are not padded to one length.
    """
    ours, theirs = found.states[found.after :], wanted.states[wanted.after :]
    same_length = len(found.states) == len(wanted.states)
    padding = found.states[wanted.after + behind :] if same_length else ours[behind:]
    a, b = torch.cat([ours[:behind], padding]), torch.cat([theirs[:behind], theirs[behind:]])
    relative = (a - b).pow(2).sum() / b.pow(2).sum()
    if found.pooled is None or wanted.pooled is None:
        return relative
    return relative + (found.pooled - wanted.pooled).pow(2).sum() / wanted.pooled.pow(2).sum()
