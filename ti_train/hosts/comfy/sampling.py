"""How ComfyUI's models predict, and the samplers that it has."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import comfy.model_sampling
import comfy.samplers
from einops import rearrange
from torch import Tensor

from ...errors import UserError
from ...host import Prediction


def check_names(sampler: str, scheduler: str) -> None:
    """Raises UserError for a name that ComfyUI does not have, in place of which it would sample with euler, normal.

    "" is what suits the model family.
    """
    _check("sampler", sampler, comfy.samplers.KSampler.SAMPLERS)
    _check("scheduler", scheduler, comfy.samplers.KSampler.SCHEDULERS)


def _check(kind: str, name: str, known: Collection[str]) -> None:
    if name and name not in known:
        raise UserError(f"preview_{kind} is '{name}', and ComfyUI has no such {kind}. It has {', '.join(known)}.")


def prediction_of(sampling: Any) -> Prediction:
    """The model's parametrisation. Raises UserError for an unsupported one."""
    kinds = comfy.model_sampling
    if isinstance(sampling, kinds.CONST):
        return "flow"
    if isinstance(sampling, kinds.EPS) and not isinstance(sampling, kinds.X0 | kinds.EDM):
        return "v" if isinstance(sampling, kinds.V_PREDICTION) else "eps"
    names = ", ".join(kind.__name__ for kind in type(sampling).__mro__[1:-1])
    raise UserError(f"The model's sampling ({names}) is not supported. Supported are eps, v and flow prediction.")


def from_x0(x0: Tensor, noisy: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """Converts denoised latents to the model's prediction, [B, C, h, w]."""
    sigma = rearrange(sigma, "b -> b 1 1 1")
    if prediction == "v":
        return (noisy / (sigma**2 + 1) - x0) * (sigma**2 + 1).sqrt() / sigma
    return (noisy - x0) / sigma
