"""The arms: ways to train an embedding, each with the numbers of images after which it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ti_train.training.config import PRESETS, TrainConfig

PAPERS_MARKS = (25, 50, 100, 200, 500, 1000, 5000)
BASE = "Balanced"


@dataclass(frozen=True)
class Arm:
    """options: of ti_train's TrainConfig, or of diffusers' script. marks: images seen; () is the end alone."""

    name: str
    kind: str  # "paper", "diffusers", "preset" or "ablation"
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: str = BASE
    marks: tuple[int, ...] = ()


def arms() -> dict[str, Arm]:
    """All arms by name, in the order of the tables."""
    made = [
        Arm("Paper", "paper", preset="Paper", marks=PAPERS_MARKS),
        *(Arm(f"diffusers {images}", "diffusers", DIFFUSERS | {"max_train_steps": images}) for images in (100, 500)),
        Arm("diffusers default", "diffusers"),
        *(Arm(preset, "preset", preset=preset) for preset in PRESETS if preset != "Paper"),
        *(
            Arm(f"{preset}, {name}", "ablation", options, preset)
            for preset, ablations in ABLATIONS.items()
            for name, options in ablations.items()
        ),
    ]
    return {arm.name: arm for arm in made}


# How the script's README and most users run it; its own defaults are batches of 16 at 1e-4.
DIFFUSERS: Mapping[str, Any] = {"train_batch_size": 1, "learning_rate": 5e-3, "lr_warmup_steps": 0}

# What is changed of a preset, to see what it is worth.
ABLATIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    BASE: {
        "one at a time": {"batch_size": 1, "steps": TrainConfig("x", "x").steps * TrainConfig("x", "x").batch_size},
        "constant rate": {"schedule": "constant"},
        "far too fast": {"schedule": "constant", "learning_rate": 0.2},
        "half the rate": {"learning_rate": 0.5 * float(TrainConfig("x", "x").learning_rate)},
        "twice the rate": {"learning_rate": 2 * float(TrainConfig("x", "x").learning_rate)},
        "uniform noise levels": {"timesteps": "uniform"},
        "high noise": {"timesteps": "high-noise"},
        "sigma": {"weighting": "sigma"},
        "averaged": {"average": 0.25},
        "pull": {"pull": 1.0},
        "sphere": {"optimizer": "sphere", "learning_rate": 2e-2, "pull": 0.1},
        "two vectors": {"num_vectors": 2},
        "twice the steps": {"steps": 2 * TrainConfig("x", "x").steps},
        "half the steps": {"steps": TrainConfig("x", "x").steps // 2},
        "half the steps, sigma": {"steps": TrainConfig("x", "x").steps // 2, "weighting": "sigma"},
    },
    "Preview": {
        "unweighted": {"weighting": "none"},
        "exclusion": {"per_image_words": 0.5, "exclusion": 0.05},
    },
}
