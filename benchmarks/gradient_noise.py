"""How much the gradient of a step varies with its random draws, on the embedded model.

python benchmarks/gradient_noise.py [BATCHES]

The standard deviation of the gradient of four images over many steps, in lengths of their mean gradient, for each way
of drawing noise levels and noise; untrained and trained vectors of three concepts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ti_train.data.dataset import Dataset, encode_pictures, find_pictures, read_pictures  # noqa: E402
from ti_train.formats import load_embedding  # noqa: E402
from ti_train.hosts.diffusers.host import DiffusersHost  # noqa: E402
from ti_train.prompts import PLACEHOLDER, Templates  # noqa: E402
from ti_train.seeds import seed_from  # noqa: E402
from ti_train.training.micro_batches import antithetic, draw_latents, draw_noise, split_batch  # noqa: E402
from ti_train.training.timesteps import NoiseLevels, positions, stratified  # noqa: E402
from ti_train.training.weighting import loss_weights  # noqa: E402

CONCEPTS = {"teal-heart": "heart", "lime-star": "star", "rose-drop": "drop"}
SIZE = 4
WAYS = {  # name: (places of the noise levels, opposite noise, weighting)
    "independent": ("independent", False, "none"),
    "one in each quarter": ("stratified", False, "none"),
    "even over the run": ("even", False, "none"),
    "and opposite noise": ("even", True, "none"),
    "and weighting sigma": ("even", True, "sigma"),
}


def gradient(host: DiffusersHost, dataset: Dataset, vectors: dict[str, Tensor], step: int, way: str) -> Tensor:
    places, opposite, weighting = WAYS[way]
    generator = torch.Generator().manual_seed(seed_from("step", 0, step))
    images = dataset.take((step - 1) * SIZE, SIZE, 0)
    x0 = draw_latents(images, generator)
    noise = draw_noise(x0, generator)
    drawn = {
        "independent": lambda: torch.rand(SIZE, generator=generator, dtype=torch.float64),
        "stratified": lambda: stratified(SIZE, generator),
        "even": lambda: positions(dataset, step, SIZE, 0),
    }[places]()
    sigma = NoiseLevels.of("uniform", host.sigmas, host.prediction).at(drawn)
    prompts = [Templates.load("object").draw("", generator) for _ in images]
    leaves = {encoder: v.clone().requires_grad_() for encoder, v in vectors.items()}
    with host.training():
        paired = antithetic(noise, sigma) if opposite else noise
        for part in split_batch(images, x0, paired, sigma, prompts, SIZE, host.device):
            weights = loss_weights(weighting, part.sigma, host.prediction)
            ((part.losses(host, {PLACEHOLDER: leaves}) * weights).sum() / SIZE).backward()
    return torch.cat([leaf.grad.flatten() for leaf in leaves.values() if leaf.grad is not None])


def deviation(gradients: list[Tensor]) -> tuple[float, float]:
    """The standard deviation, and the length of the mean."""
    mean = torch.stack(gradients).mean(dim=0)
    return float((torch.stack(gradients) - mean).norm(dim=-1).square().mean().sqrt()), float(mean.norm())


def main(batches: int) -> None:
    host = DiffusersHost.load(ROOT / "demo" / "model")
    print("standard deviation / length of the mean: " + ", ".join(WAYS))
    for concept, initial in CONCEPTS.items():
        found = read_pictures(find_pictures(ROOT / "demo" / "concepts" / concept), host.resolution, [])
        dataset = encode_pictures(host, found)
        trained = load_embedding(ROOT / "demo" / "words" / f"{concept}.safetensors").fitted_to(host.widths)
        untrained = {encoder: host.vocabulary(encoder).rows(initial)[:1] for encoder in host.widths}
        for name, vectors in (("untrained", untrained), ("trained", trained)):
            row = []
            for way in WAYS:
                spread, mean = deviation([gradient(host, dataset, vectors, k + 1, way) for k in range(batches)])
                row.append(f"{spread:.4f} / {mean:.4f}")
            print(f"{concept:10} {name:9}", "  ".join(row), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
