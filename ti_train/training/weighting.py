"""How much the loss of each noise level counts."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ..errors import UserError
from ..host import Prediction
from .timesteps import NUMBER

SIGMA, MIN_SNR = re.compile(f"sigma(?: {NUMBER})?"), re.compile(f"min-snr {NUMBER}")


def check_weighting(kind: str) -> str:
    """The text of the option, if it can be read. Raises UserError."""
    power, cap = SIGMA.fullmatch(kind), MIN_SNR.fullmatch(kind)
    read = kind == "none" or (power and float(power[1] or 1) <= 2) or (cap and float(cap[1]) > 0)
    if not read:
        raise UserError(
            f"weighting is '{kind}'; it must be none, sigma or one of its powers up to 2, such as 'sigma 0.5', or "
            "min-snr with its cap, such as 'min-snr 5'."
        )
    return kind


def loss_weights(kind: str, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The weight of the loss at each noise level, in the shape of `sigma`.

    sigma p: the square error of the noise counts with SNR^(-p/2), where SNR^(-1/2) is the ratio of noise to signal,
    whatever the model predicts. So an eps model's own loss counts with sigma^p, a v model's with
    sigma^p / (1 + sigma^2), and a flow model's, whose sigma is a share, with sigma^p (1 - sigma)^(2 - p). With p = 1
    the last two are largest where noise and signal are equal, and 0 at pure noise.
    min-snr: the square error of the image counts with min(SNR, cap) (Hang et al. 2023, "Min-SNR", section 3.4).

    The square error of the noise is that of the image, times SNR; that of the image is the loss of the prediction,
    divided by SNR (eps) or SNR + 1 (v), or multiplied by sigma^2 (flow).
    """
    snr = ((1 - sigma) / sigma) ** 2 if prediction == "flow" else 1 / sigma**2
    if cap := MIN_SNR.fullmatch(kind):
        image = snr.clamp_max(float(cap[1]))
    elif power := SIGMA.fullmatch(kind):
        image = snr ** (1 - float(power[1] or 1) / 2)
    else:
        return torch.ones_like(sigma)
    return image * (1 / (snr + 1) if prediction == "v" else sigma**2)
