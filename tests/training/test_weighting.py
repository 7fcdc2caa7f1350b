"""Weights of the loss by noise level, against the error of the image that a prediction means."""

from __future__ import annotations

import pytest
import torch

from ti_train.errors import UserError
from ti_train.training.timesteps import NoiseLevels
from ti_train.training.weighting import check_weighting, loss_weights

SIGMA = torch.tensor([0.03, 0.4, 0.98], dtype=torch.float64)


def image_error(prediction: str, error: torch.Tensor) -> torch.Tensor:
    """The error of the image, from that of the prediction: Salimans & Ho 2022, appendix D; flow: x - sigma v."""
    if prediction == "v":
        return SIGMA / (1 + SIGMA**2).sqrt() * error
    return SIGMA * error


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
@pytest.mark.parametrize(
    ("kind", "of_image"),
    [("min-snr 5", lambda snr: snr.clamp(max=5)), ("sigma", torch.sqrt), ("sigma 2", torch.ones_like)],
)
def test_a_weighted_loss_is_the_images_error_times_a_function_of_its_snr(prediction, kind, of_image):
    error = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    snr = ((1 - SIGMA if prediction == "flow" else 1) / SIGMA) ** 2
    expected = of_image(snr) * image_error(prediction, error) ** 2
    assert torch.allclose(loss_weights(kind, SIGMA, prediction) * error**2, expected)


def test_sigma_is_the_loss_of_the_noise_times_sigma():
    for kind, power in (("sigma", 1), ("sigma 0.5", 0.5), ("sigma 2", 2)):
        assert torch.allclose(loss_weights(kind, SIGMA, "eps"), SIGMA**power)
    assert torch.equal(loss_weights("none", SIGMA, "eps"), torch.ones_like(SIGMA))


@pytest.mark.parametrize("wrong", ["", "snr", "sigma 3", "min-snr", "min-snr 0", "min-snr -1"])
def test_what_cannot_be_read_is_refused(wrong, settings):
    check_weighting("min-snr .5")
    with pytest.raises(UserError, match=r"weighting is '.*'; it must be none, sigma or"):
        settings(weighting=wrong)


def test_a_mean_is_over_the_draws():
    levels = NoiseLevels.of("200-899", torch.arange(1000.0), "eps")
    assert float(levels.mean(levels.sigmas)) == pytest.approx((200 + 899) / 2)
