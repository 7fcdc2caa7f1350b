"""The options of a training run: one frozen dataclass, checked once, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from ..data.masks import Source
from ..errors import UserError
from ..names import bare_name, check_name, with_paths
from ..prompts import BUILT_IN
from ..text import whole
from .learning_rate import number_or_schedule, rate_segments
from .options import option, options_of
from .timesteps import NAMED, check_timesteps
from .weighting import check_weighting

# Balanced comes first wherever presets are listed: few steps at a high learning rate that decays to 0, in batches of
# four, with norms that stay those of words, so that edits are shown. benchmarks/README.md has the measurements; it has
# not been compared on a full-sized model yet.
PRESETS: dict[str, dict[str, Any]] = {
    "Balanced": {},
    # A first look. Weighted by sigma, fidelity is .06 higher after these 100 images, see benchmarks/README.md.
    "Preview": {"steps": 25, "weighting": "sigma", "pull": 0.0},
    # A style covers the whole image, and takes four times as long on the embedded model (see demo/README.md).
    "Style": {"templates": "style", "steps": 500, "learning_rate": 5e-3},
    # Gal et al. 2022 and the repositories that follow it: constant learning rate, one image per step.
    "Paper": {
        "steps": 5000,
        "batch_size": 1,
        "learning_rate": 5e-3,
        "schedule": "constant",
        "pull": 0.0,
        "square": True,
        "evaluate_every": 50,
    },
}
EMBEDDING, TRAINING, PROMPTS, IMAGES = "Embedding", "Training", "Prompts and captions", "Images"
PREVIEWS, MEMORY, ABLATIONS = "Previews", "Memory and checkpoints", "Ablations of the paper"
MANY = 1_000_000  # steps, or steps between two events: "never" in practice
PREVIEWS_EVERY = 100  # steps, where only prompts are given
SEEDS = 2**63 - 1  # the seeds of the preview prompts follow it
BATCH = 256
FILE = "file"  # stands for the path of one whose content is compared


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a run's result; the defaults are the preset Balanced. Raises UserError."""

    # fmt: off
    name: str = option(
        MISSING, EMBEDDING, "Name",
        "Name of the embedding and of its file, such as my-cat, or pets/my-cat in a subfolder.",
        example="my-word", aliases=("placeholder_token", "token_string"),
    )
    init: str = option(
        MISSING, EMBEDDING, "Initial text",
        "What the images show, in a word or two ('cat', 'painting'), or an embedding file to start from. Several, "
        "with vertical bars between them: the one with the lowest validation loss is used.",
        example="object", aliases=("initializer_token", "init_word"),
    )
    num_vectors: int = option(
        0, EMBEDDING, "Vectors",
        "Vectors (tokens) of the embedding; 0 = as many as the initial text has tokens, up to 4, or as the initial "
        "file has. A text with more tokens than vectors is shortened as initial_vectors says (by default to the mean "
        "of neighbouring tokens). Fewer vectors are easier to edit.",
        least=0, most=75, aliases=("num_vectors", "num_vectors_per_token"),
    )
    initial_vectors: Literal["text", "condensed", "cross"] = option(
        "text", EMBEDDING, "Initial vectors",
        "How they are made of the initial text. text: its tokens; if these are more than the vectors, the mean of "
        "neighbours. condensed: fewer vectors are fitted instead, so that prompts condition as with the text. cross: "
        "the text encoder's output of the text (Cross Initialization; CLIP only); on the small model in "
        "demo/ it failed: fidelity 0.54 instead of 0.93.",
    )
    steps: int = option(
        120, TRAINING, "Steps",
        "Training steps (optimizer updates). Use more if the embedding shows too little of its images.",
        least=1, most=MANY, aliases=("max_train_steps",),
    )
    batch_size: int = option(  # four even out the noise levels within a step
        4, TRAINING, "Batch size", "Images per forward pass. Lower uses less VRAM.",
        least=1, most=BATCH, aliases=("train_batch_size",), may_change=True,
    )
    accumulation: int = option(
        1, TRAINING, "Gradient accumulation",
        "Forward passes per step. Batch size 1 with 4 of them trains like batch size 4, with less VRAM.",
        # an out-of-memory error may leave each image of the largest step a pass of its own
        least=1, most=BATCH**2, aliases=("gradient_accumulation_steps",), may_change=True,
    )
    learning_rate: float | str = option(  # 1e-2 is most of a coordinate's spread in CLIP's table
        1e-2, TRAINING, "Learning rate",
        "Learning rate. A text such as '5e-3:100, 1e-3' gives rates with their last steps and replaces the schedule.",
        least=0, step=0.0001, aliases=("lr", "learning_rate"),
    )
    schedule: Literal["linear", "constant"] = option(
        "linear", TRAINING, "Schedule",
        "Learning rate schedule. linear: decays to 0, which averages out the noise of the last steps.",
        aliases=("lr_scheduler",),
    )
    warmup: int = option(
        0, TRAINING, "Warmup",
        "Steps over which the learning rate rises to its value; 0 = none, which is fine for an embedding.",
        least=0, most=MANY, aliases=("lr_warmup_steps",),
    )
    gradient_clip: float = option(
        1.0, TRAINING, "Gradient clipping", "Maximum gradient norm (clipping); 0 = off.",
        least=0, most=1000, step=0.1, aliases=("max_grad_norm",),
    )
    timesteps: str = option(
        "auto", TRAINING, "Timesteps",
        "Distribution of the noise levels. auto: logit-normal for flow models (Flux, SD 3 ...), else uniform, over the "
        "levels of the model as it is connected: ModelSamplingFlux or ModelSamplingSD3 in front give another shift. "
        "high-noise: mostly strong noise, which decides composition and style. Or a range of the 1000 timesteps such "
        "as 500-899 ('500-899 .1' draws a tenth of the samples from all levels), or mean and deviation of log(SNR) "
        "such as logsnr -3 2.",
        choices=(*NAMED, "500-899", "200-899", "logsnr -3 2"),
    )
    guidance: float = option(
        0.0, TRAINING, "Distilled guidance",
        "Guidance of a model in which it is distilled, such as Flux.1 dev, in ComfyUI: train with the one that you "
        "sample with; 0 = the model's own (Flux.1 dev: 3.5).",
        least=0, most=100, step=0.1,
    )
    weighting: str = option(
        "none", TRAINING, "Loss weighting",
        "What the loss of a noise level counts, on average 1. none: as it is, so that weak noise, whose gradients are "
        "the largest and noisiest, counts most. sigma: the error of the noise times the ratio of noise to signal, so "
        "that v and flow models count most where both are equal; sigma 0.5: times its root. min-snr 5: the image's "
        "error times the signal-to-noise ratio, up to 5.",
        choices=("none", "sigma", "min-snr 5"),
    )
    optimizer: Literal["adamw", "sphere"] = option(
        "adamw", TRAINING, "Optimizer",
        "adamw: AdamW without weight decay. sphere: only the directions are trained, at the mean norm of the "
        "vocabulary; the learning rate is the angle of a step, 0.01 to 0.04.",
    )
    pull: float = option(
        1.0, TRAINING, "Pull",
        "adamw: pulls the norms back to those of the initial vectors; 1: by 100 times the learning rate of the way in "
        "each step (at 0.01 all of it). sphere: pulls the directions towards the initial ones; 1: with a tenth of the "
        "gradient. More is easier to edit.",
        least=0, most=100, step=0.05,
    )
    average: float = option(
        0.0, TRAINING, "Average",
        "Part of the run, at its end, whose vectors are averaged for the file and the previews; 0 = off. It evens out "
        "the noise of the last steps where the learning rate does not fall to 0.",
        least=0, most=1, step=0.05,
    )
    progressive_every: int = option(
        0, ABLATIONS, "Progressive vectors",
        "Add one more vector to the training every this many steps; 0 = train all from the start (paper: 2000).",
        least=0, most=MANY,
    )
    per_image_words: float = option(
        0.0, ABLATIONS, "Per-image tokens",
        "Probability that a prompt also contains a per-image token, which is discarded at the end; 0 = off (paper: "
        "0.25).",
        least=0, most=0.99, step=0.05, aliases=("per_image_tokens",),
    )
    exclusion: float = option(
        0.0, ABLATIONS, "Exclusion",
        "Weight of a loss that keeps what the images share out of the per-image tokens, so that it goes into the "
        "embedding; 0 = off (its paper: 0.05). It needs per-image tokens and two images; a step takes about twice as "
        "long.",
        least=0, most=100, step=0.05,
    )
    context: float = option(
        0.0, ABLATIONS, "Context",
        "Weight of a loss that keeps the meaning of the words beside the embedding as it was with the initial vectors; "
        "0 = off (its paper: 0.00015). More is easier to edit.",
        least=0, most=100, step=0.0001,
    )
    coarse_weight: float = option(
        0.0, ABLATIONS, "Regularization",
        "Weight of the squared distance to the initial vectors in the loss; 0 = off. Closer ones are easier to edit.",
        least=0, most=MANY, step=0.01,
    )
    templates: str = option(
        "object", PROMPTS, "Templates",
        "Prompts to train with: object ('a photo of a ...'), style, captions and style-captions (with the caption of "
        "each image), or a text file with one template per line ([name], and [filewords] for the caption).",
        choices=tuple(BUILT_IN), aliases=("learnable_property",),
    )
    shuffle_tags: bool = option(
        False, PROMPTS, "Shuffle tags", "Shuffle the comma-separated tags of a caption each time.",
        aliases=("shuffle_caption",),
    )
    drop_tags: float = option(
        0.0, PROMPTS, "Drop tags", "Probability of dropping each tag of a caption; 0 = off.",
        least=0, most=0.99, step=0.05, aliases=("caption_tag_dropout_rate",),
    )
    keep_tags: int = option(
        0, PROMPTS, "Keep tags", "Number of tags at the beginning of a caption that are neither shuffled nor dropped.",
        least=0, most=100, aliases=("keep_tokens",),
    )
    flip: bool = option(
        False, IMAGES, "Mirror", "Also train on mirrored copies. Not for text, or where left and right differ.",
        aliases=("flip_aug",),
    )
    square: bool = option(
        False, IMAGES, "Crop",
        "Train the center square of an image instead of nearly all of it at its own proportions.",
        choices=("keep proportions", "square"), aliases=("center_crop",),
    )
    mask: Source = option(  # noqa: RUF009 - a field, as the others are
        "files", IMAGES, "Masks",
        "Which part of an image to train. files: the white part of NAME-mask.png beside it, or of masks/NAME.png; "
        "alpha: if there is no such file, the opaque part; none: the whole image.",
    )
    resolution: int = option(
        0, IMAGES, "Resolution",
        "Side of a square image in pixels; other proportions get as many pixels. 0 = the model's own (Stable "
        "Diffusion 1: 512), or less where a step with one image would not fit into the GPU's memory.",
        least=0, most=2048, step=8,
    )
    seed: int = option(
        0, TRAINING, "Seed",
        "Random seed. The same seed trains the same embedding again; on a GPU there may be rounding differences (see "
        "deterministic).",
        least=0, most=SEEDS,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", MEMORY, "Precision",
        "Precision of the model; the embedding is always float32. auto: the fastest on this device.",
    )
    device: str = option(
        "auto", MEMORY, "Device", "auto, cuda, mps, xpu or cpu.",
        choices=("auto", "cuda", "mps", "xpu", "cpu"), may_change=True,
    )
    deterministic: bool = option(
        False, MEMORY, "Deterministic",
        "Use PyTorch's deterministic GPU kernels, so that the same seed gives the same bits. Steps are slower, several "
        "times on a fast GPU at batch size 1. Not needed on a CPU.",
        may_change=True,
    )
    gradient_checkpointing: bool = option(
        False, MEMORY, "Gradient checkpointing",
        "Recompute activations to save VRAM (about a third slower). Enabled automatically after an out-of-memory "
        "error.",
        aliases=("gradient_checkpointing",), may_change=True,
    )
    evaluate_every: int = option(  # benchmarks/README.md has the cost
        24, TRAINING, "Validate every", "Steps between two computations of the validation loss.",
        least=1, most=MANY, may_change=True,
    )
    checkpoint_every: int = option(
        100, MEMORY, "Checkpoint every",
        "Steps between two checkpoints, in case of a crash or power cut; see checkpoint_seconds too. An interrupted "
        "run is always saved.",
        least=1, most=MANY, aliases=("checkpointing_steps", "save_steps"), may_change=True,
    )
    preview_every: int = option(
        0, PREVIEWS, "Preview every",
        "Steps between two previews; 0 = off. A preview takes as long as generating an image. Train Embedding starts "
        f"with {PREVIEWS_EVERY}; preview prompts alone set {PREVIEWS_EVERY} on the command line and in a fleet, 25 in "
        "the WebUIs' tab.",
        least=0, most=MANY, aliases=("validation_steps", "sample_every_n_steps"), may_change=True,
    )
    preview_prompts: tuple[str, ...] = option(
        ("a photo of *",), PREVIEWS, "Preview prompts",
        "Prompts of the previews; * or <name> is the embedding. The first preview shows it untrained, same seed.",
        aliases=("validation_prompt",), may_change=True,
    )
    preview_negative: str = option(
        "", PREVIEWS, "Negative prompt", "Negative prompt of the previews.",
        may_change=True,
    )
    preview_steps: int = option(
        0, PREVIEWS, "Preview steps",
        "Sampling steps of a preview; 0 = what suits the model family (Stable Diffusion: 25; others 4 to 50).",
        least=0, most=1000, may_change=True,
    )
    preview_cfg: float = option(
        0.0, PREVIEWS, "Preview cfg",
        "CFG scale of the previews; 0 = what suits the model family (Stable Diffusion: 5; others 3.5 to 5; 1 where "
        "guidance is distilled into the model).",
        least=0, most=100, step=0.1, may_change=True,
    )
    preview_sampler: str = option(
        "", PREVIEWS, "Preview sampler", "Sampler of the previews, in ComfyUI; empty = what suits the model family.",
        may_change=True,
    )
    preview_scheduler: str = option(
        "", PREVIEWS, "Preview scheduler",
        "Scheduler of the previews, in ComfyUI; empty = what suits the model family.",
        may_change=True,
    )
    preview_seed: int | None = option(
        None, PREVIEWS, "Preview seed", "Seed of the first preview prompt; each further prompt adds 1.",
        least=0, most=SEEDS, unset="the training seed", may_change=True,
    )
    checkpoint_seconds: int = option(
        30, MEMORY, "Checkpoint seconds",
        "Seconds between two checkpoints, if checkpoint_every steps take longer; 0 = by steps only. So a crash loses "
        "half a minute and one step, with its preview, at most.",
        least=0, most=86400, may_change=True,
    )
    copy_every: int = option(
        0, MEMORY, "Copy every",
        "Steps between two numbered copies of the embedding, in a folder NAME-steps beside it: the way back if it was "
        "trained for too long; 0 = off.",
        least=0, most=MANY, aliases=("save_every_n_steps",), may_change=True,
    )
    early_stop: int = option(
        0, TRAINING, "Early stop",
        "Ends the run after this many measurements of the validation loss in a row without a new lowest value; 0 = "
        "off.",
        least=0, most=MANY, may_change=True,
    )
    # fmt: on

    @classmethod
    def from_preset(cls, preset: str, **given: Any) -> TrainConfig:
        """The preset's values, overridden by `given`; None or an empty text is the preset's. Raises UserError."""
        if preset not in PRESETS:
            raise UserError(f"Unknown preset '{preset}'. The presets are {', '.join(PRESETS)}.")
        own = {key: v for key, v in given.items() if v is not None and not (v == "" and OPTIONS[key].presets)}
        return cls(**PRESETS[preset] | own)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_name(self.name))
        for text in ("init", "preview_negative"):
            object.__setattr__(self, text, whole(getattr(self, text)))
        object.__setattr__(self, "preview_prompts", tuple(map(whole, self.preview_prompts)))
        object.__setattr__(self, "learning_rate", number_or_schedule(self.learning_rate))
        for name, about in OPTIONS.items():
            about.check(getattr(self, name))
        if self.vectors_at(self.steps) < self.num_vectors:
            raise UserError(
                f"With progressive_every {self.progressive_every}, {self.steps} steps use only "
                f"{self.vectors_at(self.steps)} of the {self.num_vectors} vectors. Increase steps or lower "
                "progressive_every."
            )
        if self.resolution % 8:
            near = max(8, round(self.resolution / 8) * 8)
            raise UserError(
                f"resolution is {self.resolution}; it must be a multiple of 8. Use {near}, or 0 for the model's own."
            )
        if not self.init.strip():
            raise UserError('init is empty. Give a word or phrase that describes the images, such as "cat".')
        rate_segments(self.learning_rate, self.steps)
        if self.exclusion and not self.per_image_words:
            raise UserError(
                f"exclusion is {self.exclusion}, but there are no per-image tokens for it. Set per_image_words, for "
                "example to 0.5, or exclusion to 0."
            )
        check_timesteps(self.timesteps)
        check_weighting(self.weighting)

    @property
    def bare_name(self) -> str:
        """The name without its folders."""
        return bare_name(self.name)

    @property
    def effective_batch(self) -> int:
        """Images per step."""
        return self.batch_size * self.accumulation

    @property
    def averaged_after(self) -> int:
        """The step after which the vectors are averaged; the last one if they are not."""
        return self.steps - round(self.average * self.steps)

    def vectors_at(self, step: int) -> int:
        """The number of vectors that step `step` uses."""
        joined = 1 + step // self.progressive_every if self.progressive_every else self.num_vectors
        return min(self.num_vectors, joined)

    def validates_after(self, step: int) -> bool:
        return step % self.evaluate_every == 0 or step == self.steps

    def previews_after(self, step: int) -> bool:
        return self.preview_every > 0 and (step % self.preview_every == 0 or step == self.steps)

    def copies_after(self, step: int) -> bool:
        return self.copy_every > 0 and step % self.copy_every == 0

    def saves_after(self, step: int, seconds: float = 0.0) -> bool:
        """seconds: since the last checkpoint."""
        due = step % self.checkpoint_every == 0 or seconds > self.checkpoint_seconds > 0
        return due and step < self.steps

    def pauses_after(self, step: int) -> bool:
        """Whether validation, previews or a checkpoint follow step `step`."""
        return self.validates_after(step) or self.previews_after(step) or self.saves_after(step)

    def learning_rate_at(self, step: int) -> float:
        """The rate of step `step`, counted from 1."""
        if isinstance(self.learning_rate, str):
            return next(rate for rate, last in rate_segments(self.learning_rate, self.steps) if step <= last)
        warm = min(1.0, step / (self.warmup + 1))
        decay = 1 - (step - 1) / self.steps if self.schedule == "linear" else 1.0
        return self.learning_rate * warm * decay

    def resume_identity(self) -> dict[str, Any]:
        """The values that determine the trained vectors: a resumed run must have the same."""
        kept = {key: getattr(self, key) for key, about in OPTIONS.items() if not about.may_change and key != "name"}
        return kept | {"init": without_paths(self.init), "effective_batch": self.effective_batch}

    def ending(self) -> dict[str, Any]:
        """The values that decide which step's vectors are the result; a resumed run may have others."""
        return {"early_stop": self.early_stop, "evaluate_every": self.evaluate_every}


OPTIONS = options_of(TrainConfig, PRESETS)
PRESET_SUMMARIES = {
    preset: (
        "{steps} steps, batch size {batch_size}, learning rate {learning_rate} ({schedule})"
        + ", loss weighting {weighting}" * ("weighting" in values)
        + ", pull {pull:g}" * ("pull" in values)
    ).format(**{name: about.presets[preset] for name, about in OPTIONS.items() if about.presets})
    for preset, values in PRESETS.items()
}
PRESETS_HELP = "Values of the options that are not given. " + " ".join(
    f"{preset}: {values}." for preset, values in PRESET_SUMMARIES.items()
)


def without_paths(init: str) -> str:
    """`init` as runs are told apart by it: its embedding files may be renamed."""
    return with_paths(init, lambda _path: FILE)


def with_preview_interval(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values that a user has given (None: not given), with an interval for previews if there are only prompts."""
    if given.get("preview_prompts") and given.get("preview_every") is None:
        return {**given, "preview_every": PREVIEWS_EVERY}
    return dict(given)
