"""What the adapter is compared with: the diffusers host on the same weights and inputs."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers_twin import twin

from ti_train.host import Size, Slot
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.training.objective import add_noise, denoising_loss, target

PROMPTS = [("a photo of a ", Slot("*")), ("a rendering of the ", Slot("*"), ", in the rain")]
SIZES = [Size((640, 512), (0, 64), (512, 512)), Size((1024, 1024), (0, 0), (768, 768))]


def diffusers_host(checkpoint: Path, family: str) -> DiffusersHost:
    """In fp32."""
    return DiffusersHost(twin(checkpoint, family), torch.device("cpu"), torch.float32)


def inputs(widths: dict[str, int]) -> dict[str, torch.Tensor]:
    """Two pictures of 64 pixels, their noise and noise levels, and a word of two vectors, from a seed.

    The word's vectors are under their encoders' names.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "x0": normal(2, 4, 8, 8), "noise": normal(2, 4, 8, 8), "timesteps": torch.tensor([150, 700]),
        "pictures": normal(1, 64, 64, 3).mul(64).add(128).clamp(0, 255).byte(),
    } | {name: 0.02 * normal(2, width) for name, width in widths.items()}  # fmt: skip


def gradient(host: DiffusersHost, data: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss, and its gradient in the word's vectors by encoder."""
    vectors = {name: data[name].clone().requires_grad_() for name in host.widths}
    sigma = host.sigmas[data["timesteps"]]
    with host.training():
        noisy = add_noise(data["x0"], data["noise"], sigma, host.prediction)
        predicted = host.predict(noisy, sigma, host.encode(PROMPTS, {"*": vectors}, SIZES))
        loss = denoising_loss(predicted, target(data["x0"], data["noise"], sigma, host.prediction)).mean()
        gradients = torch.autograd.grad(loss, list(vectors.values()))
    return float(loss.detach()), dict(zip(vectors, gradients, strict=True))
