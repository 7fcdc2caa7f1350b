"""Cross Initialization: a text encoder's output of the initial text as initial vectors (Pang et al. 2023).

Trained vectors come to lie where the encoder's outputs lie, far longer than the vocabulary's rows, so a run that begins
there has less way to go (arXiv 2312.15905, section 3.2). The paper adds a term that keeps them there: `coarse_weight`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..embedding import CLIPS, condensed
from ..errors import UserError
from ..host import Host, Slot
from ..prompts import PLACEHOLDER


def crossed(host: Host, rows: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """encoder -> the states of a prompt that is the text alone, at its tokens: [count, width].

    rows: encoder -> those of the text's tokens, [tokens, width]. The states are those that the denoiser reads: the
    last ones, after the final norm, but for models with another layer (Stable Diffusion XL, clip skip). With fewer
    tokens than vectors the last state is repeated; more are condensed as rows are. Raises UserError without CLIP.
    """
    others = [encoder for encoder in rows if not encoder.startswith(CLIPS)]
    if others:
        raise UserError(
            f"Initial vectors 'cross' need CLIP text encoders: this model has {', '.join(others)}, whose output is not "
            "on the scale of its input. Choose text or condensed."
        )
    given = {encoder: v.to(host.device, torch.float32) for encoder, v in rows.items()}
    with host.training(), torch.no_grad():
        found = host.conditioning([(Slot(PLACEHOLDER),)], {PLACEHOLDER: given})
    vectors = {}
    for encoder, (text,) in found.items():
        tokens = len(given[encoder])
        states = text.states[text.after - tokens : text.after].cpu()
        if tokens > count:
            vectors[encoder] = condensed(states, count)
        else:
            vectors[encoder] = states[torch.arange(count).clamp_max(tokens - 1)]
    return vectors
