"""DDIM as the sampler of a loaded pipeline, as in the paper's evaluation."""

from __future__ import annotations

from diffusers import DDIMScheduler

from .host import DiffusersHost


def sample_with_ddim(host: DiffusersHost) -> None:
    """Replaces the scheduler by DDIM with the same noise levels (Song et al. 2021, eta 0).

    Without clipping: latents exceed 1.
    """
    host.pipeline.scheduler = DDIMScheduler.from_config(host.pipeline.scheduler.config, clip_sample=False)
