"""Which noise levels a run trains: their distribution, and places in it that are spread evenly over the whole run."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..errors import UserError
from ..host import Prediction
from ..seeds import seed_from

# mean and standard deviation of log(SNR), where styles are decided: Choi et al. 2025, "Style-Friendly SNR Sampler"
HIGH_NOISE = "logsnr -6 2"
NAMED = ("auto", "uniform", "logit-normal", "high-noise")
NUMBER = r"(\d+\.?\d*|\.\d+)"
RANGE, LOG_SNR = re.compile(r"(\d+)-(\d+)(?: (0?\.\d+))?"), re.compile(rf"logsnr (-?){NUMBER} {NUMBER}")
TIMESTEPS = 1000  # in which a range is written, whatever the length of the model's table
EVEN = 4  # images over which the noise levels are spread evenly, at least
# The multiples of both, modulo 1, fill the interval evenly, and their pairs the square: a Kronecker sequence.
GOLDEN, SILVER = (5**0.5 - 1) / 2, 2**0.5 - 1


def check_timesteps(kind: str) -> str:
    """The text of the option, if it can be read. Raises UserError."""
    band, normal = RANGE.fullmatch(kind), LOG_SNR.fullmatch(kind)
    within = band and int(band[1]) <= int(band[2]) < TIMESTEPS
    if kind not in NAMED and not within and not (normal and float(normal[3]) > 0):
        raise UserError(
            f"timesteps is '{kind}'; it must be one of {', '.join(NAMED)}, a range of the {TIMESTEPS} timesteps such "
            "as '500-899', or mean and standard deviation of log(SNR) such as 'logsnr -3 2'."
        )
    return kind


@dataclass(frozen=True)
class NoiseLevels:
    """A distribution over a model's noise levels."""

    sigmas: Tensor  # [T] fp32 on the CPU, ascending
    cumulative: Tensor  # [T] fp64: the share of the draws that are at this level or below it

    @classmethod
    def of(cls, kind: str, sigmas: Tensor, prediction: Prediction) -> NoiseLevels:
        """kind: see `timesteps` in config.py. Raises UserError if no level of the model is in it."""
        sigmas = sigmas.float().cpu()
        reached = cumulative(kind, sigmas, prediction)
        if not reached[-1] > 0:
            raise UserError(f"timesteps is '{kind}', but the model has no noise level there. Use auto.")
        return cls(sigmas, reached / reached[-1])

    def at(self, position: Tensor) -> Tensor:
        """The noise levels [B] at places [B] in the distribution, fp64 from 0 to below 1."""
        return self.sigmas[torch.searchsorted(self.cumulative, position, right=True)]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all draws of a value that each level [T] has."""
        return (self.cumulative.diff(prepend=torch.zeros(1, dtype=torch.float64)) * values).sum()


def cumulative(kind: str, sigmas: Tensor, prediction: Prediction) -> Tensor:
    """The mass of a distribution up to each level of a table, [T] fp64, not normalised.

    logit-normal: (mean 0, standard deviation 1) of the place in the table, which has the model's own shift; Esser et
    al. 2024, section 3.1, found it best for flow models, and SD 3 and Flux are fine-tuned with it.
    A range: 500-899 is where Seo et al. 2025, "ZOODiP", found that objects are trained; a share behind it is of draws
    from all levels. logsnr: log(SNR) from a normal distribution, truncated to the table.
    """
    if kind == "high-noise":
        kind = HIGH_NOISE
    place = torch.arange(1, len(sigmas) + 1, dtype=torch.float64) / len(sigmas)
    mass: Tensor = place
    if kind == "logit-normal" or (kind == "auto" and prediction == "flow"):
        mass = torch.special.ndtr(place.logit())
    elif band := RANGE.fullmatch(kind):
        low, high, everywhere = int(band[1]) / TIMESTEPS, (int(band[2]) + 1) / TIMESTEPS, float(band[3] or 0)
        mass = (1 - everywhere) * ((place - low) / (high - low)).clamp(0, 1) + everywhere * place
    elif normal := LOG_SNR.fullmatch(kind):
        mass = torch.special.ndtr((float(normal[1] + normal[2]) - log_snr(sigmas, prediction)) / float(normal[3]))
        mass = mass - mass[0]
    return mass


def log_snr(sigmas: Tensor, prediction: Prediction) -> Tensor:
    """log(signal^2 / noise^2) of noise levels, fp64."""
    noise = sigmas.double()
    signal = 1 - noise if prediction == "flow" else torch.ones_like(noise)
    return 2 * (signal.clamp_min(1e-6) / noise.clamp_min(1e-6)).log()


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """Random places [count] fp64, one in each of `count` equal parts of the interval from 0 to 1."""
    return (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count


def positions(dataset: Dataset, step: int, size: int, seed: int) -> Tensor:
    """Places of the `size` images of a step in the distribution of noise levels, [size] fp64 from 0 to below 1.

    Over the seeds an image's places in a round are uniform, as independent draws are (Ho et al. 2020), but a run has
    them more evenly. A round, which is a step of at least EVEN images or as many steps as have them, has one place in
    each of as many equal parts of the interval; each part is filled evenly over the rounds; and each image passes
    through all parts: it takes the one that its own sequence of places is in, as far as the others leave it. So neither
    a step, nor a short run, nor an image of it has mostly strong or mostly weak noise.
    """
    steps = -(-EVEN // size)
    number, within = divmod(step - 1, steps)
    count = steps * size
    generator = torch.Generator().manual_seed(seed_from("timesteps", seed))
    begin = torch.rand(count + 1, generator=generator, dtype=torch.float64)
    turns = dataset.turns(number * count, count, seed)
    wanted = begin[-1] + torch.tensor([share + SILVER * epoch for epoch, share in turns], dtype=torch.float64)
    part = wanted.remainder(1).argsort(stable=True).argsort()
    filled = (begin[:-1] + GOLDEN * number).remainder(1)
    return ((part + filled[part]) / count)[within * size :][:size]
