"""The noise levels of hosts that give alphas, and the network's own time."""

from __future__ import annotations

import torch

from ti_train.hosts.noise_levels import network_input, sigmas_of, timesteps_of

LEVELS = torch.tensor([0.5, 1.0, 2.0, 4.0])


def test_levels_are_those_of_the_alphas_of_any_precision():
    """alpha = 1 / (1 + sigma^2)."""
    alphas = 1 / (1 + LEVELS.double() ** 2)
    assert torch.allclose(sigmas_of(alphas), LEVELS, rtol=1e-7)
    assert torch.allclose(sigmas_of(alphas.half()), LEVELS, rtol=2e-3)
    assert sigmas_of(alphas).dtype == torch.float32


def test_each_level_has_its_own_place():
    assert timesteps_of(LEVELS[[3, 0, 2]], LEVELS).tolist() == [3, 0, 2]


def test_what_lies_between_or_beyond_has_the_next_place_that_there_is():
    sigma = torch.tensor([0.1, 0.7, 1.5, 9.0])
    places = timesteps_of(sigma, LEVELS)
    assert places.tolist() == [0, 1, 2, 3]
    assert places.dtype == torch.int64
    assert torch.equal(places, torch.searchsorted(LEVELS, sigma).clamp_max(3))


def test_the_networks_input_has_the_variance_of_clean_latents():
    """Latents and noise of unit variance, each picture at its own level."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 2, 4, 64, 64, generator=generator)
    sigma = torch.tensor([0.5, 14.0])
    scaled = network_input(clean + sigma.view(2, 1, 1, 1) * noise, sigma)
    assert torch.allclose(scaled.var(dim=(1, 2, 3)), torch.ones(2), atol=0.05)
