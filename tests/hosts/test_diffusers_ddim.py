"""The paper's sampler in place of the folder's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from diffusers import PNDMScheduler

from ti_train.host import SampleRequest
from ti_train.hosts.diffusers.ddim import sample_with_ddim
from ti_train.hosts.diffusers.host import DiffusersHost


def test_ddim_takes_the_place_of_the_folders_sampler(pipeline_folder):
    """Against the update by hand (Song et al. 2021, eq. 12, eta 0), whatever the folder's sampler is."""
    host = DiffusersHost.load(pipeline_folder, "cpu", "float32")
    host.pipeline.scheduler = PNDMScheduler.from_config(host.pipeline.scheduler.config)
    sample_with_ddim(host)
    (picture,) = host.sample(SampleRequest((("a cat",),), (5,), 16, 16, steps=4, guidance=3.0), {})

    cond, empty = host.encode([("a cat",)], {}), host.encode([("",)], {})
    alphas = 1 / (1 + host.sigmas**2)
    side = 16 // host.pipeline.vae_scale_factor
    x = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for t in (751, 501, 251, 1):
            now, after = alphas[t], alphas[max(t - 250, 0)]
            noisy, sigma = x / now.sqrt(), host.sigmas[t : t + 1]
            with_text, without = host.predict(noisy, sigma, cond), host.predict(noisy, sigma, empty)
            eps = without + 3.0 * (with_text - without)
            x = after.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - after).sqrt() * eps
        pixels = host.vae.decode(x / host.vae.config.scaling_factor).sample[0].permute(1, 2, 0)
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().numpy()
    assert np.abs(np.asarray(picture, float) - expected).max() <= 1
