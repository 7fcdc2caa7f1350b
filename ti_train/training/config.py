"""What a training run is told: one frozen dataclass, checked once, and the table of presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..data.masks import Source
from ..errors import UserError
from ..files import check_name

PRESETS: dict[str, dict[str, Any]] = {
    # Gal et al. 2022 and the repositories that follow it: constant rate, one picture a step.
    "Paper": {
        "steps": 5000,
        "batch_size": 1,
        "learning_rate": 5e-3,
        "schedule": "constant",
        "square": True,
        "evaluate_every": 50,
    },
    # A style is spread over the whole picture, and on the embedded model takes four times as long (see demo/README.md).
    "Style": {"templates": "style", "steps": 500, "learning_rate": 5e-3},
    # Short and steep, in batches of four, with a rate that falls to 0: benchmarks/README.md has what it was measured
    # on. It has not been compared on a full-sized model yet.
    "Balanced": {},
}


@dataclass(frozen=True)
class TrainConfig:
    """All that decides a run's result; the defaults are the preset Balanced. Raises UserError on what cannot work."""

    name: str
    init: str  # a word or phrase, or an embedding file to go on from
    num_vectors: int = 1  # the paper: one word is as faithful as several and easier to edit
    steps: int = 120  # optimizer updates
    batch_size: int = 4  # pictures a forward pass; four even out the noise levels within a step
    accumulation: int = 1  # forward passes an update, where the memory does not hold the batch at once
    learning_rate: float | str = 1e-2  # most of a coordinate's spread in CLIP's table; or A1111's "5e-3:100, 1e-3"
    schedule: Literal["linear", "constant"] = "linear"  # linear to 0: the last steps average the noise away
    warmup: int = 0  # steps; Adam's first step has the size of the rate whatever the gradient, so there is no need
    gradient_clip: float = 1.0  # largest norm of the gradient of one update; 0 switches it off
    progressive_every: int = 0  # steps between two of its vectors that join in; 0: all from the start. The paper: 2000
    per_image_words: float = 0.0  # how often a prompt also names a word of its picture alone. The paper: 0.25
    coarse_weight: float = 0.0  # of the squared distance to the start in the loss: nearer is easier to edit
    templates: str = "object"  # object, style, captions, style-captions, or a text file
    shuffle_tags: bool = False  # comma-separated tags of a caption in a new order each time
    drop_tags: float = 0.0  # how often each tag of a caption is left out, so that the word leans on none of them
    keep_tags: int = 0  # tags at a caption's beginning that are neither shuffled nor left out
    flip: bool = False  # mirrored copies too: wrong for text and for whatever has a left and a right
    square: bool = False  # the middle square, as in the published runs, instead of about the whole picture
    mask: Source = "files"  # what says which part of a picture is learnt: see data/masks.py
    resolution: int = 0  # side in pixels of a square picture, others have as many pixels; 0: the model's own
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: what the hardware computes fastest
    device: str = "auto"  # auto, cuda, mps, xpu, cpu
    deterministic: bool = False  # asks PyTorch for kernels that give the same digits every time: slower, on a GPU
    gradient_checkpointing: bool = False  # a third slower, for cards that do not hold the activations
    evaluate_every: int = 12  # steps between two measures of the noise-free loss: see benchmarks/README.md for the cost
    checkpoint_every: int = 100  # steps between two saves: minutes at most are lost even to a power cut
    preview_every: int = 0  # steps; 0: none
    preview_prompts: tuple[str, ...] = ("a photo of *",)
    preview_negative: str = ""  # what previews should not show
    preview_seed: int | None = None  # of the first preview prompt; None: the run's

    @classmethod
    def from_preset(cls, preset: str, **given: Any) -> TrainConfig:
        """The preset's values under the given ones; a given None means the preset's value."""
        if preset not in PRESETS:
            raise UserError(f"There is no preset '{preset}'. The presets are {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[preset], **{key: value for key, value in given.items() if value is not None}})

    def __post_init__(self) -> None:
        check_name(self.name)
        at_least = {"num_vectors": 1, "steps": 1, "batch_size": 1, "accumulation": 1, "evaluate_every": 1}
        at_least |= {
            "checkpoint_every": 1,
            "warmup": 0,
            "gradient_clip": 0,
            "preview_every": 0,
            "resolution": 0,
            "keep_tags": 0,
            "progressive_every": 0,
            "coarse_weight": 0,
        }
        for field, least in at_least.items():
            if not getattr(self, field) >= least:  # false for what is no number, too
                raise UserError(f"{field} is {getattr(self, field)}; it must be at least {least}.")
        for field in ("drop_tags", "per_image_words"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}; it is a probability, from 0 to below 1.")
        if self.vectors_at(self.steps) < self.num_vectors:
            raise UserError(
                f"With progressive_every {self.progressive_every}, {self.steps} steps reach only "
                f"{self.vectors_at(self.steps)} of the {self.num_vectors} vectors. Give more steps, or a vector sooner."
            )
        if self.resolution % 8:
            near = max(8, round(self.resolution / 8) * 8)
            raise UserError(
                f"resolution is {self.resolution}; the VAE needs a multiple of 8 pixels. "
                f"Give {near}, or 0 for the model's own."
            )
        if not self.init.strip():
            raise UserError('init is empty. Give a word that says roughly what the pictures show, such as "cat".')
        rate_segments(self.learning_rate, self.steps)

    @property
    def effective_batch(self) -> int:
        """Pictures an update."""
        return self.batch_size * self.accumulation

    def vectors_at(self, step: int) -> int:
        """How many of the word's vectors update `step` uses."""
        joined = 1 + step // self.progressive_every if self.progressive_every else self.num_vectors
        return min(self.num_vectors, joined)

    def evaluates_after(self, step: int) -> bool:
        return step % self.evaluate_every == 0 or step == self.steps

    def previews_after(self, step: int) -> bool:
        return self.preview_every > 0 and (step % self.preview_every == 0 or step == self.steps)

    def saves_after(self, step: int) -> bool:
        return step % self.checkpoint_every == 0 and step < self.steps

    def pauses_after(self, step: int) -> bool:
        """Whether more happens after update `step` than the next update."""
        return self.evaluates_after(step) or self.previews_after(step) or self.saves_after(step)

    def learning_rate_at(self, step: int) -> float:
        """The rate of update `step`, counted from 1."""
        if isinstance(self.learning_rate, str):
            return next(rate for rate, last in rate_segments(self.learning_rate, self.steps) if step <= last)
        warm = min(1.0, step / (self.warmup + 1))
        decay = 1 - (step - 1) / self.steps if self.schedule == "linear" else 1.0
        return self.learning_rate * warm * decay

    def shaping(self) -> dict[str, Any]:
        """The values that shape the learnt vectors: those that a resumed run must share with its beginning."""
        elsewhere = {
            "device",
            "checkpoint_every",
            "preview_every",
            "preview_prompts",
            "preview_negative",
            "preview_seed",
            "evaluate_every",
            "batch_size",
            "accumulation",
            "gradient_checkpointing",
            "deterministic",
        }
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in elsewhere}
        return kept | {"effective_batch": self.effective_batch}


def rate_segments(rate: float | str, steps: int) -> list[tuple[float, float]]:
    """A1111's schedule string "0.005:100, 1e-3:1000, 1e-5" -> [(rate, its last step)]; a number is one segment.

    A last step of -1, or none, means to the end. Raises UserError.
    """
    example = 'Write a number such as 0.005, or rates with their last steps: "0.005:100, 1e-3:400, 1e-5".'
    segments: list[tuple[float, float]] = []
    for part in str(rate).split(","):
        value, _, last = part.partition(":")
        try:
            segment = (float(value), math.inf if last.strip() in ("", "-1") else float(int(last)))
        except ValueError:
            raise UserError(f"The learning rate '{rate}' cannot be read at '{part.strip()}'. {example}") from None
        if not 0 <= segment[0] < math.inf:
            raise UserError(f"The learning rate {segment[0]} is not a number from 0 up. {example}")
        if segments and segment[1] <= segments[-1][1]:
            raise UserError(f"The steps in the learning rate '{rate}' do not rise at '{part.strip()}'. {example}")
        segments.append(segment)
    if segments[-1][1] < steps:
        raise UserError(
            f"The learning rate '{rate}' ends at step {segments[-1][1]:.0f} of {steps}. "
            "Add a last rate without a step, or lower steps."
        )
    return segments


def number_or_schedule(text: str | None) -> float | str | None:
    """A plain number as a number, so that the preset's schedule applies to it; rates with their steps are their own."""
    try:
        return None if text is None or not text.strip() else float(text)
    except ValueError:
        return text
