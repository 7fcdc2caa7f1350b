"""The forward and backward passes of a step: of one training alone, or of several that share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import UserError
from ..host import Embeddings, Host
from .config import TrainConfig
from .determinism import deterministic
from .micro_batches import MicroBatch

NO_GRADIENT = (
    "No gradient reached the embedding, so it cannot be trained. Likely causes: the model ignores its prompt (an "
    "untrained or damaged U-Net); an attention without a backward pass is enabled (SageAttention: start without "
    "--use-sage-attention, or remove its node); or another extension runs the text encoder without gradients."
)


@dataclass(frozen=True)
class Work:
    """What a step computes. weights: of each loss, [B] per micro-batch; they make the sum of all losses the step's.

    embeddings and terms (what is added to the loss of the images) are called where gradients are enabled. scale: of
    the loss in the backward pass, a power of two. memory: bytes that the passes need.
    """

    config: TrainConfig
    parts: Sequence[MicroBatch]
    weights: Sequence[Tensor]
    embeddings: Callable[[], Embeddings]
    terms: Callable[[Embeddings], Iterator[Tensor]]
    scale: Tensor
    memory: int


class Passes(Protocol):
    def backward(self, host: Host, work: Work) -> Tensor:
        """Adds the gradients to the leaves; returns the loss of the images, without the further terms.

        Raises UserError if the loss does not depend on the embeddings.
        """


class Alone:
    """One training on a model: a pass for each micro-batch."""

    def backward(self, host: Host, work: Work) -> Tensor:
        config, losses = work.config, []
        with host.training(config.gradient_checkpointing, work.memory), deterministic(config.deterministic):
            embeddings = work.embeddings()
            for part, weights in zip(work.parts, work.weights, strict=True):
                loss = (part.losses(host, embeddings) * weights).sum()
                differentiable(loss).mul(work.scale).backward()
                losses.append(loss.detach())
            for term in work.terms(embeddings):
                (term * work.scale).backward()
        return torch.stack(losses).sum()


ALONE = Alone()


def differentiable(loss: Tensor) -> Tensor:
    """The same loss. Raises UserError if it does not depend on the vectors."""
    if not loss.requires_grad:
        raise UserError(NO_GRADIENT)
    return loss
