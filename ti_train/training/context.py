"""The context loss: the words beside the embedding keep the meaning that they have beside the initial vectors.

CoRe (AAAI 2025): the part of its loss on the text encoder's output, L_emb. The other part, on attention maps, is left
out: by the paper's own ablation image similarity is higher without it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..host import Host, Prompt, Slot, Vectors
from ..prompts import PLACEHOLDER

AT_ONCE = 4  # prompts in a step
BEFORE = ("a ", "a photo of a ", "a painting of a ", "a drawing of a small ", "two pictures of the ", "the red ")
BEHIND = (
    " on a beach", " in the snow", " on a wooden table", " in front of a house", " beside a dog", " in a city at night",
    " made of glass", " on a blue background", ", a watercolor", ", a pencil sketch", " and a cup of coffee",
    " under a tree", " in the style of a poster", " seen from above", " held by a child", " floating on water",
)  # fmt: skip


def draw_contexts(generator: torch.Generator) -> list[Prompt]:
    """Random prompts with words before and behind the embedding."""

    def drawn(of: tuple[str, ...]) -> list[str]:
        return [of[i] for i in torch.randint(len(of), (AT_ONCE,), generator=generator).tolist()]

    return [(before, Slot(PLACEHOLDER), behind) for before, behind in zip(drawn(BEFORE), drawn(BEHIND), strict=True)]


def context_loss(host: Host, prompts: list[Prompt], vectors: Vectors, initial: Vectors) -> Tensor:
    """Mean of 1 - cosine similarity between an encoder's states with the embedding and with the initial vectors.

    Over all states behind the embedding, those of the padding too, since the denoiser reads them; the ones before it
    are the same where the encoder is causal. vectors, initial: encoder -> [n, width]. Call it within `training()`.
    """
    with torch.no_grad():
        wanted = host.conditioning(prompts, {PLACEHOLDER: initial})
    distances = [
        1 - F.cosine_similarity(text.states[text.after :].float(), before.states[before.after :].float(), dim=-1).mean()
        for encoder, texts in host.conditioning(prompts, {PLACEHOLDER: vectors}).items()
        for text, before in zip(texts, wanted[encoder], strict=True)
    ]
    return torch.stack(distances).mean()
