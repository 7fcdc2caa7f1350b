"""A training request, from the API or the tab. Works with pydantic 1.10 and 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, create_model

from ..ti_train.data.dataset import with_repeats
from ..ti_train.errors import UserError
from ..ti_train.names import PICTURES, file_names, names_file
from ..ti_train.prompts import BUILT_IN
from ..ti_train.training.checkpoint import RunFiles
from ..ti_train.training.config import OPTIONS, PRESETS_HELP, TrainConfig
from ..ti_train.training.learning_rate import number_or_schedule
from ..ti_train.training.options import Option
from . import folders
from .option_names import NOT_OFFERED, NOTES


class RunRequest(BaseModel):
    """The request without the options of the training run, which TrainRequest adds."""

    name: str
    pictures: str = Field(description="A folder in ti-train/pictures with 3 to 5 images.")
    more_pictures: list[str] = Field(
        default=[], description="Further folders; the images of FOLDER:3 are repeated three times."
    )
    preset: str = Field(default="Balanced", description=PRESETS_HELP)
    overwrite: bool = Field(default=False, description="Replace an embedding of this name.")
    resume: bool = Field(default=False, description="Continue the interrupted training of this name.")

    def config(self) -> TrainConfig:
        """The training settings. Raises UserError."""
        given = {name: getattr(self, name) for name in OFFERED}
        read = {
            "init": self._initial(given["init"]),
            "learning_rate": number_or_schedule(given["learning_rate"]),
            "templates": self._templates(given["templates"]),
            "preview_prompts": tuple(prompt for prompt in given["preview_prompts"] if prompt.strip()),
        }
        return TrainConfig.from_preset(self.preset, **given | read)

    def folders(self) -> dict[Path, int]:
        """The image folders and their repeats per epoch. Raises UserError."""
        return with_repeats([self.pictures, *self.more_pictures], folders.picture_folder)

    def target(self) -> Path:
        """The embedding's file. Raises UserError if it exists already, or if there is nothing to resume."""
        file = folders.embedding_file(self.name)
        interrupted = RunFiles(file.parent, file.stem, {}).interrupted()
        if self.resume and not interrupted:
            raise UserError(f"There is nothing to resume: no training of '{self.name}' was interrupted. Use Train.")
        if file.exists() and not (self.overwrite or self.resume):
            raise UserError(
                f"'{self.name}' already exists. Choose another name, resume its training if it was interrupted, "
                "or set overwrite."
            )
        if interrupted and not (self.overwrite or self.resume):
            raise UserError(
                f"The training of '{self.name}' was interrupted after step {interrupted.step}. Resume it, choose "
                "another name, or set overwrite."
            )
        twins = [path for path in folders.embedding_files() if path.stem == file.stem and path != file]
        if not self.resume and (twin := next((path for path in twins if path.suffix.lower() not in PICTURES), None)):
            raise UserError(
                f"'{twin.relative_to(folders.embeddings()).as_posix()}' has the name '{file.stem}' too. Prompts of the "
                "WebUI use an embedding by its name without folders, so they would use only one. Choose another name."
            )
        return file

    def _initial(self, init: str) -> str:
        if not names_file(init):
            return init
        files = [folders.existing_embedding(name) for name in file_names(init)]
        return str(next((file for file in files if file.is_file()), files[0]))

    def _templates(self, templates: str | None) -> str | None:
        if templates is None or templates in BUILT_IN:
            return templates
        files = folders.template_files()
        if templates not in files:
            known = ", ".join([*BUILT_IN, *files])
            raise UserError(f"There are no templates '{templates}'. Available: {known}.")
        return str(files[templates])


def field_of(option: Option) -> tuple[Any, Any]:
    """Type and field of an option in a pydantic model. null means the preset's value."""
    numbers = {"ge": option.least, "le": option.most} if option.kind in ("int", "float") else {}
    field: dict[str, Any] = {
        "description": option.described("null = preset", "null") + NOTES.get(option.name, ""),
        **numbers,
    }
    if option.presets or option.default is None:
        return option.type | None, Field(default=None, **field)
    if option.kind == "lines":
        return list[str], Field(default=list(option.default), **field)
    default = {"name": ..., "init": option.example}.get(option.name, option.default)
    return option.type, Field(default=default, **field)


OFFERED = tuple(name for name in OPTIONS if name not in NOT_OFFERED)
if TYPE_CHECKING:
    TrainRequest = RunRequest  # type checkers cannot see a model that is made at run time
else:
    TrainRequest = create_model(
        "TrainRequest", __base__=RunRequest, **{name: field_of(OPTIONS[name]) for name in OFFERED}
    )
