"""The objective against formulas that are written here independently, and its gradient against differences."""

from __future__ import annotations

import pytest
import torch
from tiny_host import ENCODER, WIDTH, TinyHost

from ti_train.host import Slot
from ti_train.training.objective import add_noise, denoising_loss, target

PREDICTIONS = ("eps", "v", "flow")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(3, 4, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return x0, noise, torch.tensor([0.03, 0.4, 0.98], dtype=torch.float64)


def column(sigma):
    return sigma[:, None, None, None]


def x0_from_eps(noisy, sigma, answer):
    return noisy - sigma * answer


def x0_from_v(noisy, sigma, answer):
    """Salimans & Ho 2022, appendix D: x = alpha z - s v, with z on the unit circle alpha^2 + s^2 = 1."""
    alpha, s = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
    return alpha * (alpha * noisy) - s * answer


def x0_from_flow(noisy, sigma, answer):
    return noisy - sigma * answer


@pytest.mark.parametrize(("prediction", "x0_from"), [("eps", x0_from_eps), ("v", x0_from_v), ("flow", x0_from_flow)])
def test_a_right_answer_gives_the_picture_back(batch, prediction, x0_from):
    x0, noise, sigma = batch
    noisy, answer = add_noise(x0, noise, sigma, prediction), target(x0, noise, sigma, prediction)
    assert torch.allclose(x0_from(noisy, column(sigma), answer), x0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_without_noise_the_picture_is_itself(batch, prediction):
    x0, noise, sigma = batch
    assert torch.equal(add_noise(x0, noise, 0 * sigma, prediction), x0)


def test_at_its_largest_level_flow_is_all_noise(batch):
    x0, noise, sigma = batch
    assert torch.equal(add_noise(x0, noise, sigma / sigma, "flow"), noise)


def test_eps_and_v_are_those_of_diffusers(batch):
    """Its variance-preserving z = x / sqrt(1 + sigma^2) at the same levels."""
    diffusers = pytest.importorskip("diffusers")
    x0, noise, _ = batch
    scheduler = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    timesteps = torch.tensor([0, 321, 999])
    alphas = scheduler.alphas_cumprod[timesteps]
    sigma = ((1 - alphas) / alphas).sqrt()
    for prediction in ("eps", "v"):
        preserving = add_noise(x0, noise, sigma, prediction) / (1 + column(sigma) ** 2).sqrt()
        assert torch.allclose(preserving, scheduler.add_noise(x0, noise, timesteps))
    assert torch.equal(target(x0, noise, sigma, "eps"), noise)
    assert torch.allclose(target(x0, noise, sigma, "v"), scheduler.get_velocity(x0, noise, timesteps))


def test_the_loss_is_each_samples_mean_square_in_fp32():
    predicted = torch.zeros(2, 4, 2, 2, dtype=torch.bfloat16)
    wanted = torch.stack([torch.full((4, 2, 2), 3.0), torch.ones(4, 2, 2)])
    loss = denoising_loss(predicted, wanted)
    assert (loss.tolist(), loss.dtype) == ([9.0, 1.0], torch.float32)


# --- The gradient of the vectors ------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("num_vectors", [1, 2])
def test_the_gradient_is_the_slope_of_the_loss(batch, prediction, num_vectors):
    """Every coordinate, against central differences in float64."""
    x0, noise, sigma = batch
    host = TinyHost(prediction, torch.float64)
    prompts = [("a photo of a ", Slot("*")), (Slot("*"), " and ", Slot("*")), ("the ", Slot("*"), " toy")]
    noisy, wanted = add_noise(x0, noise, sigma, prediction), target(x0, noise, sigma, prediction)

    def answer(vectors):
        return host.predict(noisy, sigma, host.encode(prompts, {"*": {ENCODER: vectors}}))

    vectors = 0.3 * torch.randn(num_vectors, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    vectors.requires_grad_()
    with host.training():
        denoising_loss(answer(vectors), wanted).mean().backward()

    h = 1e-5
    slopes = torch.zeros_like(vectors)
    with torch.no_grad():
        for i in range(vectors.numel()):
            d = torch.zeros_like(vectors)
            d.view(-1)[i] = h
            above, below = ((answer(vectors + s * d) - wanted).pow(2).mean() for s in (1, -1))
            slopes.view(-1)[i] = (above - below) / (2 * h)
    assert slopes.norm() > 1e-4
    assert torch.allclose(vectors.grad, slopes, rtol=1e-3, atol=1e-5 * slopes.norm().item())
