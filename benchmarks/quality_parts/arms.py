"""The arms: ways to train an embedding, each with the numbers of images after which it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ti_train.training.config import PRESETS, TrainConfig

PAPERS_MARKS = (25, 50, 100, 200, 500, 1000, 5000)
BASE, PLAIN = "Balanced", "Plain"


@dataclass(frozen=True)
class Arm:
    """options: of ti_train's TrainConfig, or of diffusers' script. marks: images seen; () is the end alone. seeds: how
    many runs, the mean of whose vectors is measured.
    """

    name: str
    kind: str  # "paper", "diffusers", "preset" or "ablation"
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: str = BASE
    marks: tuple[int, ...] = ()
    seeds: int = 1


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
        Arm(f"{BASE}, mean of three seeds", "ablation", seeds=3),
        Arm(f"{BASE}, mean of four seeds, one at a time", "ablation", {"batch_size": 1}, seeds=4),
        Arm(PLAIN, "ablation", UNPULLED),
        *(Arm(f"{PLAIN}, {name}", "ablation", UNPULLED | options) for name, options in OF_PLAIN.items()),
    ]
    return {arm.name: arm for arm in made}


# How the script's README and most users run it; its own defaults are batches of 16 at 1e-4.
DIFFUSERS: Mapping[str, Any] = {"train_batch_size": 1, "learning_rate": 5e-3, "lr_warmup_steps": 0}

BALANCED = TrainConfig("x", "x")
STEPS, RATE = BALANCED.steps, float(BALANCED.learning_rate)
ONE = {"batch_size": 1, "steps": STEPS * BALANCED.batch_size}
TWO = {"batch_size": 2, "steps": STEPS * BALANCED.batch_size // 2}
THREE = {"batch_size": 3, "steps": STEPS * BALANCED.batch_size // 3}
UNPULLED, SPHERE = {"pull": 0.0}, {"optimizer": "sphere", "learning_rate": 2e-2}

# What is changed of a preset, to see what it is worth.
ABLATIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    BASE: {
        "one at a time": ONE,
        "two at a time": TWO,
        "two at a time, slower": TWO | {"learning_rate": 0.7 * RATE},
        "three at a time": THREE,
        "sigma": {"weighting": "sigma"},
        "sigma 0.5": {"weighting": "sigma 0.5"},
        "half the rate": {"learning_rate": 0.5 * RATE},
        "twice the rate": {"learning_rate": 2 * RATE},
        "two vectors": {"num_vectors": 2},
        "cross": {"initial_vectors": "cross"},
        "sphere": SPHERE,
        "twice the steps": {"steps": 2 * STEPS},
        "twice the steps, two at a time": TWO | {"steps": 4 * STEPS},
        "half the steps": {"steps": STEPS // 2},
    },
    "Preview": {
        "unweighted": {"weighting": "none"},
        "one at a time": {"batch_size": 1, "steps": 100},
        "half the rate": {"learning_rate": 0.5 * RATE},
        "two vectors": {"num_vectors": 2},
        "pull": {"pull": 1.0},
        "exclusion": {"per_image_words": 0.5, "exclusion": 0.05},
    },
    "Style": {
        "sigma": {"weighting": "sigma"},
        "high noise": {"timesteps": "high-noise"},
        "two vectors": {"num_vectors": 2},
        "without pull": UNPULLED,
        "two at a time": {"batch_size": 2, "steps": 1000},
    },
}

# What is changed of plain AdamW: Balanced without the pull.
OF_PLAIN: Mapping[str, Mapping[str, Any]] = {
    "one at a time": ONE,
    "two at a time": TWO,
    "constant rate": {"schedule": "constant"},
    "far too fast": {"schedule": "constant", "learning_rate": 0.2},
    "half the rate": {"learning_rate": 0.5 * RATE},
    "twice the rate": {"learning_rate": 2 * RATE},
    "high noise": {"timesteps": "high-noise"},
    "band 500-899": {"timesteps": "500-899 .1"},
    "min-snr 5": {"weighting": "min-snr 5"},
    "sigma": {"weighting": "sigma"},
    "sigma 0.5": {"weighting": "sigma 0.5"},
    "averaged": {"average": 0.25},
    "sigma, averaged": {"weighting": "sigma", "average": 0.25},
    "constant rate, averaged": {"schedule": "constant", "average": 0.5},
    "sigma, pull": {"weighting": "sigma", "pull": 1.0},
    "sphere": SPHERE | {"pull": 1.0},
    "sigma, sphere": SPHERE | {"weighting": "sigma"},
    "one vector": {"num_vectors": 1},
    "one vector, condensed": {"num_vectors": 1, "initial_vectors": "condensed"},
    "two vectors": {"num_vectors": 2},
    "two vectors, sigma": {"num_vectors": 2, "weighting": "sigma"},
    "two vectors, pull": {"num_vectors": 2, "pull": 1.0},
    "cross": {"initial_vectors": "cross"},
    "per-image tokens": {"per_image_words": 0.25},
    "exclusion": {"per_image_words": 0.5, "exclusion": 0.05},
    "context": {"context": 1.5e-4},
    "held to the start": {"coarse_weight": 0.01},
    "twice the steps": {"steps": 2 * STEPS},
    "twice the steps, sigma": {"steps": 2 * STEPS, "weighting": "sigma"},
    "half the steps": {"steps": STEPS // 2},
    "half the steps, sigma": {"steps": STEPS // 2, "weighting": "sigma"},
}
