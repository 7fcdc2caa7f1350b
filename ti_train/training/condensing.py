"""Condensing: initial vectors that are fewer than the tokens of their text, found through the text encoders alone.

The mean of a text's rows (`condensed` in embedding.py) is of no word. With the vectors found here, prompts condition
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

TEXTS = (  # before and behind; fewer of them are fitted better, and other prompts worse
    ("a photo of a ", ""),
    ("a ", " on a table, close-up"),
    ("my ", " in the snow"),
    ("a painting of the ", " by night"),
    ("the ", " and a tree"),
    ("a good picture of one ", ""),
)
FILLER = "a "  # one token, for each that the vectors are fewer: what stands behind them is at the places of the text's
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
    fewer = {e: len(text[e]) - len(v) for e, v in start.items() if len(v) < len(text[e])}
    best, shares = dict(start), dict.fromkeys(fewer, 1.0)
    if not fewer:
        return Condensed(best, shares)
    with host.training(gradient_checkpointing=True):  # the graphs of all prompts would keep an encoder each
        with torch.no_grad():
            wanted = host.conditioning(prompts(0), {PLACEHOLDER: text})
            first = distances(host, wanted, start, fewer)
        # coordinates in units of the start's norm, so that steps suit every encoder's table
        units = {encoder: start[encoder].norm().clamp_min(1e-12) for encoder in fewer}
        leaves = {encoder: (start[encoder] / units[encoder]).requires_grad_() for encoder in fewer}
        optimizer = torch.optim.LBFGS(
            leaves.values(), max_iter=MOST, max_eval=MOST, tolerance_change=FLAT, line_search_fn="strong_wolfe"
        )

        def evaluated() -> Tensor:
            if stop():
                raise Stopped
            optimizer.zero_grad()
            vectors = start | {encoder: leaf * units[encoder] for encoder, leaf in leaves.items()}
            now = {e: d / first[e].clamp_min(1e-12) for e, d in distances(host, wanted, vectors, fewer).items()}
            for encoder, share in now.items():
                if float(share.detach()) < shares[encoder]:
                    shares[encoder], best[encoder] = float(share.detach()), vectors[encoder].detach()
            total = torch.stack(list(now.values())).sum()
            total.backward()
            return total.detach()

        with suppress(Stopped):
            optimizer.step(evaluated)
    return Condensed({encoder: v.cpu().clone() for encoder, v in best.items()}, shares)


def prompts(fewer: int) -> list[Prompt]:
    """The prompts for vectors that are fewer than the text's tokens by so many."""
    return [(FILLER * fewer + before, Slot(PLACEHOLDER), behind) for before, behind in TEXTS]


def distances(
    host: Host, wanted: Mapping[str, list[TextStates]], vectors: Vectors, fewer: Mapping[str, int]
) -> dict[str, Tensor]:
    """Encoder -> mean over the prompts of the distance between the vectors' states and the wanted ones, a scalar.

    fewer: encoder -> by how many its vectors are fewer than the text's tokens.
    """
    found = {count: host.conditioning(prompts(count), {PLACEHOLDER: vectors}) for count in set(fewer.values())}
    return {
        encoder: torch.stack(list(map(distance, found[count][encoder], wanted[encoder]))).mean()
        for encoder, count in fewer.items()
    }


def distance(found: TextStates, wanted: TextStates) -> Tensor:
    """Squared distance of what stands behind the slot, plus that of the pooled outputs, each relative to its size."""
    behind = found.states[found.after :], wanted.states[wanted.after :]
    count = min(map(len, behind))  # the same, unless the filler is several tokens for this encoder
    total = relative(behind[0][:count], behind[1][:count])
    if found.pooled is None or wanted.pooled is None:
        return total
    return total + relative(found.pooled, wanted.pooled)


def relative(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).pow(2).sum() / wanted.pow(2).sum()
