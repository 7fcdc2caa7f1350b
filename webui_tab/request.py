"""Requests, from the API or the tab; the one for a training is made of the table of options.

Works with pydantic 1.10 and 2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import sd_samplers
from pydantic import BaseModel, Field, ValidationError, create_model, root_validator

from ..ti_train.data.dataset import with_repeats
from ..ti_train.errors import UserError
from ..ti_train.hosts.webui.sampling import SAMPLING
from ..ti_train.names import PICTURES, file_names, with_paths
from ..ti_train.prompts import BUILT_IN, Templates
from ..ti_train.text import whole
from ..ti_train.training.checkpoint import Interrupted, RunFiles, name_in
from ..ti_train.training.config import OPTIONS, PRESETS_HELP, TrainConfig
from ..ti_train.training.options import Option
from ..ti_train.training.session import unused_captions
from . import folders
from .option_names import NOT_OFFERED, NOTES

LONGEST = 100  # entries of a list
SIZE_HELP = "{} of the previews in pixels. 0 = the training resolution."


class Request(BaseModel):
    """A request that refuses fields that it does not know: a misspelt option must not be left out silently."""

    @root_validator(pre=True, allow_reuse=True)
    def _known(cls, given: Any) -> Any:  # noqa: N805 - pydantic 1.10's form
        if not isinstance(given, Mapping):
            return given  # pydantic itself says that it is no object
        fields = list(cls.__fields__)
        unknown = [name for name in given if name not in fields]
        if unknown:
            raise ValueError("; ".join(f"unknown field '{name}'{_nearest(name, fields)}" for name in unknown))
        return {name: _whole(value) for name, value in given.items()}

    def check_lists(self) -> None:
        """Raises UserError for a list that is longer than any use needs."""
        for name, value in self:
            if isinstance(value, list) and len(value) > LONGEST:
                raise UserError(f"'{name}' has {len(value)} entries; {LONGEST} are possible.")


def _whole(value: Any) -> Any:
    """A JSON value with a mark in place of half a character, which neither a file's name nor an answer can have."""
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return whole(value) if isinstance(value, str) else value


def _nearest(name: str, fields: list[str]) -> str:
    near = get_close_matches(name, fields, n=1)
    return f", did you mean '{near[0]}'?" if near else f" (known: {', '.join(fields)})"


def in_words(error: ValidationError, given: Mapping[str, Any]) -> str:
    """What is wrong with the values of a form, by the labels of its fields; pydantic's own text names its types."""
    lines = []
    for mistake in error.errors():
        name = str(mistake["loc"][0])
        label = OPTIONS[name].label if name in OPTIONS else name.replace("_", " ").capitalize()
        lines.append(f"{label} is '{given.get(name)}': {mistake['msg'][:1].lower()}{mistake['msg'][1:]}.")
    return " ".join(lines)


class RunRequest(Request):
    """The request without the options of the training run, which TrainRequest adds."""

    name: str
    pictures: str = Field(description="A folder in ti-train/pictures with 3 to 5 images.")
    more_pictures: list[str] = Field(
        default=[], description="Further folders; the images of FOLDER:3 are repeated three times."
    )
    preset: str = Field(default="Balanced", description=PRESETS_HELP)
    overwrite: bool = Field(default=False, description="Replace an embedding of this name.")
    resume: bool = Field(default=False, description="Continue the interrupted training of this name.")
    preview_sampler: str = Field(
        default=SAMPLING.sampler, description="Sampler of the previews, by its name in the WebUI."
    )
    preview_steps: int = Field(
        default=0, description=f"Sampling steps of the previews. 0 = {SAMPLING.steps}.", ge=0, le=150
    )
    preview_cfg: float = Field(
        default=0.0, description=f"CFG scale of the previews. 0 = {SAMPLING.cfg:g}.", ge=0, le=30
    )
    preview_width: int = Field(default=0, description=SIZE_HELP.format("Width"), ge=0, le=2048, multiple_of=8)
    preview_height: int = Field(default=0, description=SIZE_HELP.format("Height"), ge=0, le=2048, multiple_of=8)

    def config(self) -> TrainConfig:
        """The training settings. Raises UserError."""
        self.check_lists()
        given = {name: getattr(self, name) for name in OFFERED}
        read = {
            "name": name_in(folders.embeddings(), self.name) if self.resume else self.name,
            "init": self._initial(given["init"]),
            "templates": self._templates(given["templates"]),
            "preview_prompts": tuple(prompt for prompt in given["preview_prompts"] if prompt.strip()),
            "preview_sampler": self.preview_sampler,
        }
        return TrainConfig.from_preset(self.preset, **given | read)

    def check_sampler(self) -> None:
        """Raises UserError for a sampler that the WebUI does not have."""
        known = [sampler.name for sampler in sd_samplers.samplers]
        if self.preview_sampler not in known:
            raise UserError(f"There is no sampler '{self.preview_sampler}'. Available: {', '.join(known)}.")

    def folders(self) -> dict[Path, int]:
        """The image folders and their repeats per epoch. Raises UserError."""
        return with_repeats([self.pictures, *self.more_pictures], folders.picture_folder)

    def target(self) -> Path:
        """The embedding's file. Raises UserError if it exists already, or if there is nothing to resume."""
        file = folders.embedding_file(self.name)
        if self.resume:
            check_resumable(self.name)
        if file.exists() and not (self.overwrite or self.resume):
            raise UserError(
                f"'{self.name}' already exists. Choose another name, resume its training if it was interrupted, "
                "or set overwrite."
            )
        if (interrupted := interrupted_run(self.name)) and not (self.overwrite or self.resume):
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
        def path_of(name: str) -> str:
            files = [folders.existing_embedding(each) for each in file_names(name)]
            return str(next(filter(os.path.isfile, files), files[0]))

        return with_paths(init, path_of)

    def _templates(self, templates: str | None) -> str | None:
        return None if templates is None else templates_of(templates)


def templates_of(name: str) -> str:
    """Built-in templates by name, or the path of the WebUI's template file. Raises UserError."""
    files = folders.template_files()
    if name not in BUILT_IN and name not in files:
        raise UserError(f"There are no templates '{name}'. Available: {', '.join([*BUILT_IN, *files])}.")
    return name if name in BUILT_IN else str(files[name])


def captions_left_out(captions: Sequence[str], templates: str) -> list[str]:
    """A remark if templates with this name leave out captions; a file that cannot be read uses none."""
    try:
        loaded = Templates.load(templates_of(templates))
    except UserError:
        loaded = Templates(())
    return unused_captions(captions, loaded, templates)


def interrupted_run(name: str) -> Interrupted | None:
    file = folders.embedding_file(name)
    return RunFiles(file.parent, file.stem, {}).interrupted()


def check_resumable(name: str) -> None:
    """Raises UserError if no training of that name was interrupted."""
    if not interrupted_run(name):
        raise UserError(f"There is nothing to resume: no training of '{name}' was interrupted. Use Train.")


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
NARROWER = ("preview_steps", "preview_cfg")  # options with the bounds of the WebUIs' own fields, in RunRequest
if TYPE_CHECKING:
    TrainRequest = RunRequest  # type checkers cannot see a model that is made at run time
else:
    options = {name: field_of(OPTIONS[name]) for name in OFFERED if name not in NARROWER}
    TrainRequest = create_model("TrainRequest", __base__=RunRequest, **options)
