"""What a training is asked for, by the API and by the tab; loads in pydantic 1.10 and 2."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from ..ti_train.checkpoint import RunFiles
from ..ti_train.config import PRESETS, TrainConfig, check_name
from ..ti_train.errors import UserError
from ..ti_train.formats import names_file
from ..ti_train.prompts import BUILT_IN
from . import folders


class TrainRequest(BaseModel):
    name: str = Field(description="How the word is written in prompts, and its file's name.", min_length=1)
    init: str = Field(
        default="object",
        description="What the pictures show in the model's own words ('cat'), or a file of the embeddings folder "
        "(NAME.safetensors, NAME.pt ...) to go on from.",
    )
    pictures: str = Field(description="A folder below ti-train/pictures, with 3 to 5 pictures.")
    num_vectors: int = Field(default=1, description="Vectors (tokens) of the word, 1 to 75.", ge=1, le=75)
    preset: str = Field(default="Balanced", description=f"{', '.join(PRESETS)}: values of all that is not given.")
    steps: int | None = Field(default=None, description="Updates of the word.", ge=1, le=1_000_000)
    learning_rate: str | None = Field(
        default=None, description="A number, or rates with their last steps: '5e-3:100, 1e-3'."
    )
    batch_size: int | None = Field(default=None, description="Pictures a step.", ge=1, le=256)
    templates: str | None = Field(
        default=None,
        description=f"{', '.join(BUILT_IN)}, or the name of a file of the WebUI's textual_inversion_templates.",
    )
    flip: bool = Field(default=False, description="Train on mirrored copies too.")
    resolution: int = Field(default=0, description="Side in pixels; 0: the model's own.", ge=0, le=2048)
    gradient_checkpointing: bool = Field(default=False, description="Less memory for a third more time.")
    seed: int = Field(default=0, description="Of all random numbers; the same seed learns the same word.", ge=0)
    preview_every: int = Field(default=0, description="Steps between previews; 0: none.", ge=0)
    preview_prompts: list[str] = Field(default=["a photo of *"], description="* or <name> is the word.")
    overwrite: bool = Field(default=False, description="Replace a word of this name.")
    resume: bool = Field(default=False, description="Go on with the interrupted training of this name.")

    def config(self) -> TrainConfig:
        """The core's settings. Raises UserError."""
        return TrainConfig.from_preset(
            self.preset,
            name=self.name,
            init=self._start(),
            num_vectors=self.num_vectors,
            steps=self.steps,
            learning_rate=number_or_schedule(self.learning_rate),
            batch_size=self.batch_size,
            templates=self._templates(),
            flip=self.flip,
            resolution=self.resolution,
            gradient_checkpointing=self.gradient_checkpointing,
            seed=self.seed,
            preview_every=self.preview_every,
            preview_prompts=tuple(prompt for prompt in self.preview_prompts if prompt.strip()),
        )

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


def number_or_schedule(text: str | None) -> float | str | None:
    """A plain number as a number, so that the preset's schedule applies to it."""
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        return text
