"""DDIM as the sampler of a loaded pipeline, whichever its folder names: what the paper's figures are made with."""

from __future__ import annotations

from diffusers import DDIMScheduler

from .host import DiffusersHost


def sample_with_ddim(host: DiffusersHost) -> None:
    """Keeps the folder's noise levels. Latents exceed one, so they are never clipped. (Song et al. 2021, eta 0)"""
    host.pipeline.scheduler = DDIMScheduler.from_config(host.pipeline.scheduler.config, clip_sample=False)
