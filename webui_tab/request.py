"""What a training is asked for, by the API and by the tab; loads in pydantic 1.10 and 2."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from ..ti_train.data.dataset import with_repeats
from ..ti_train.data.masks import Source
from ..ti_train.errors import UserError
from ..ti_train.files import check_name
from ..ti_train.formats import names_file
from ..ti_train.prompts import BUILT_IN
from ..ti_train.training.checkpoint import RunFiles
from ..ti_train.training.config import PRESETS, TrainConfig, number_or_schedule
from . import folders


class TrainRequest(BaseModel):
    name: str = Field(description="How the word is written in prompts, and its file's name.", min_length=1)
    init: str = Field(
        default="object",
        description="What the pictures show in the model's own words ('cat'), or a file of the embeddings folder "
        "(NAME.safetensors, NAME.pt ...) to go on from.",
    )
    pictures: str = Field(description="A folder below ti-train/pictures, with 3 to 5 pictures.")
    more_pictures: list[str] = Field(default=[], description="Further folders; FOLDER:3 comes three times as often.")
    num_vectors: int = Field(default=1, description="Vectors (tokens) of the word, 1 to 75.", ge=1, le=75)
    preset: str = Field(default="Balanced", description=f"{', '.join(PRESETS)}: values of all that is not given.")
    steps: int | None = Field(default=None, description="Updates of the word.", ge=1, le=1_000_000)
    learning_rate: str | None = Field(
        default=None, description="A number, or rates with their last steps: '5e-3:100, 1e-3'."
    )
    schedule: Literal["linear", "constant"] | None = Field(
        default=None, description="How a learning rate that is one number goes on; linear: down to 0."
    )
    warmup: int = Field(default=0, description="Steps in which the rate rises.", ge=0)
    gradient_clip: float = Field(default=1.0, description="Longest gradient of a step, L2 norm; 0: no limit.", ge=0)
    batch_size: int | None = Field(default=None, description="Pictures a pass.", ge=1, le=256)
    accumulation: int = Field(default=1, description="Passes a step.", ge=1, le=256)
    templates: str | None = Field(
        default=None,
        description=f"{', '.join(BUILT_IN)}, or the name of a file of the WebUI's textual_inversion_templates.",
    )
    shuffle_tags: bool = Field(default=False, description="A caption's comma-separated tags in a new order each time.")
    drop_tags: float = Field(default=0.0, description="Probability with which each tag is left out.", ge=0, lt=1)
    keep_tags: int = Field(default=0, description="Tags at the beginning that are neither.", ge=0)
    flip: bool = Field(default=False, description="Train on mirrored copies too.")
    square: bool | None = Field(default=None, description="Cut the middle square out of every picture; false: keep it.")
    mask: Source = Field(
        default="files",
        description="What is learnt of a picture: the white of NAME-mask.png beside it or of masks/NAME.png (files), "
        "else of its alpha channel (alpha), or all of it (none).",
    )
    resolution: int = Field(default=0, description="Side in pixels; 0: the model's own.", ge=0, le=2048)
    gradient_checkpointing: bool = Field(default=False, description="Less memory for a third more time.")
    deterministic: bool = Field(
        default=False, description="On a GPU too, the same digits every time, where PyTorch has kernels for it: slower."
    )
    seed: int = Field(
        default=0,
        description="Of all random numbers; the same seed learns the same word (deterministic: to the bit).",
        ge=0,
    )
    progressive_every: int = Field(default=0, description="Steps between vectors that join in; 0: all at once.", ge=0)
    per_image_words: float = Field(
        default=0.0,
        description="Probability of a prompt with a word of its picture alone (the paper: 0.25).",
        ge=0,
        lt=1,
    )
    coarse_weight: float = Field(default=0.0, description="Weight of the distance to the start in the loss.", ge=0)
    checkpoint_every: int = Field(default=100, description="Steps between two saves.", ge=1)
    preview_every: int = Field(default=0, description="Steps between previews; 0: none.", ge=0)
    preview_prompts: list[str] = Field(default=["a photo of *"], description="* or <name> is the word.")
    preview_negative: str = Field(default="", description="What previews should not show.")
    preview_seed: int | None = Field(default=None, description="Of the first preview prompt; none: seed.", ge=0)
    overwrite: bool = Field(default=False, description="Replace a word of this name.")
    resume: bool = Field(default=False, description="Go on with the interrupted training of this name.")

    def config(self) -> TrainConfig:
        """The core's settings. Raises UserError."""
        given = {field.name: getattr(self, field.name) for field in fields(TrainConfig) if hasattr(self, field.name)}
        read = {
            "init": self._start(),
            "learning_rate": number_or_schedule(self.learning_rate),
            "templates": self._templates(),
            "preview_prompts": tuple(prompt for prompt in self.preview_prompts if prompt.strip()),
        }
        return TrainConfig.from_preset(self.preset, **given | read)

    def folders(self) -> dict[Path, int]:
        """The folders with the pictures, and how often theirs come in a round. Raises UserError."""
        return with_repeats([self.pictures, *self.more_pictures], folders.picture_folder)

    def target(self) -> Path:
        """The word's file. Raises UserError for one that is there and shall stay, or for nothing to resume."""
        file = folders.word_file(self.name)
        if self.resume and not RunFiles(file.parent, self.name, {}).state.is_file():
            raise UserError(f"There is nothing to resume: no training of '{self.name}' was interrupted. Use Train.")
        if file.exists() and not (self.overwrite or self.resume):
            raise UserError(
                f"The word '{self.name}' exists. Choose another name, resume its training if that was interrupted, "
                "or have it overwritten."
            )
        return file

    def _start(self) -> str:
        if not names_file(self.init):
            return self.init
        check_name(self.init)
        return str(folders.embeddings() / self.init)

    def _templates(self) -> str | None:
        if self.templates is None or self.templates in BUILT_IN:
            return self.templates
        files = folders.template_files()
        if self.templates not in files:
            known = ", ".join([*BUILT_IN, *files])
            raise UserError(f"There are no templates '{self.templates}'. There are {known}.")
        return str(files[self.templates])
