"""Noise levels as timesteps, and the network's input."""

from __future__ import annotations

import torch

from ti_train.hosts.noise_levels import network_input, timesteps_of

SIGMAS = torch.tensor([0.1, 0.5, 2.0, 14.0])


def test_a_level_of_the_table_is_its_own_timestep():
    assert timesteps_of(SIGMAS, SIGMAS).tolist() == [0, 1, 2, 3]


def test_a_level_between_two_takes_the_noisier_and_one_beyond_the_last():
    assert timesteps_of(torch.tensor([0.0, 0.6, 99.0]), SIGMAS).tolist() == [0, 2, 3]


def test_the_networks_input_has_the_variance_of_clean_latents():
    """Latents and noise of unit variance, each picture at its own level."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 2, 4, 64, 64, generator=generator)
    sigma = torch.tensor([0.5, 14.0])
    scaled = network_input(clean + sigma.view(2, 1, 1, 1) * noise, sigma)
    assert torch.allclose(scaled.var(dim=(1, 2, 3)), torch.ones(2), atol=0.05)
