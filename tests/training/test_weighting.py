"""Weights of the loss by noise level, against the error of the image that a prediction means."""

from __future__ import annotations

import pytest
import torch

from ti_train.errors import UserError
from ti_train.training.objective import add_noise, target
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


@pytest.mark.parametrize("power", [0.5, 1, 2])
@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_it_is_the_error_of_the_noise_whatever_the_model_predicts(prediction, power):
    """The noise that a prediction means is solved for in float64, from the noised image and the prediction alone."""
    x0, noise, error = torch.randn(3, len(SIGMA), 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    noisy, sigma = add_noise(x0, noise, SIGMA, prediction), SIGMA.view(-1, 1, 1, 1)
    predicted = target(x0, noise, SIGMA, prediction) + error
    if prediction == "eps":
        meant, ratio = predicted, sigma
    elif prediction == "v":  # noisy = x0 + sigma n and v = (n - sigma x0) / sqrt(1 + sigma^2)
        meant, ratio = (sigma * noisy + (1 + sigma**2).sqrt() * predicted) / (1 + sigma**2), sigma
    else:  # noisy = (1 - sigma) x0 + sigma n and v = n - x0
        meant, ratio = noisy + (1 - sigma) * predicted, sigma / (1 - sigma)
    assert torch.allclose(
        loss_weights(f"sigma {power}", SIGMA, prediction) * error.flatten() ** 2,
        ratio.flatten() ** power * (meant - noise).flatten() ** 2,
    )


def test_models_of_other_parametrisations_count_most_where_noise_and_signal_are_equal():
    levels = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    flow, v = loss_weights("sigma", levels, "flow"), loss_weights("sigma", 2 * levels, "v")
    assert (levels[flow.argmax()].item(), flow[-1].item()) == pytest.approx((0.5, 0))
    assert (2 * levels)[v.argmax()].item() == pytest.approx(1)


@pytest.mark.parametrize("wrong", ["", "snr", "sigma 3", "min-snr", "min-snr 0", "min-snr -1"])
def test_what_cannot_be_read_is_refused(wrong, settings):
    check_weighting("min-snr .5")
    with pytest.raises(UserError, match=r"weighting is '.*'; it must be none, sigma or"):
        settings(weighting=wrong)


def test_a_mean_is_over_the_draws():
    levels = NoiseLevels.of("200-899", torch.arange(1000.0), "eps")
    assert float(levels.mean(levels.sigmas)) == pytest.approx((200 + 899) / 2)
