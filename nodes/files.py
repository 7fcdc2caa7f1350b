"""ComfyUI's embeddings folder and template files, and what to do if a name exists."""

from __future__ import annotations

import glob
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import folder_paths

from ..ti_train.names import PICTURES, READABLE, bare_name, numbered
from ..ti_train.text import name_key
from ..ti_train.training.checkpoint import RunFiles, name_in
from ..ti_train.user_files import hashed

NEW_NUMBER, CONTINUE, REPLACE, USE = "new number", "continue", "replace", "use it if it is there"
EXISTING = (NEW_NUMBER, CONTINUE, REPLACE, USE)  # the first is the default of saved workflows
TO_CONTINUE = f"with the same settings and if_exists = {CONTINUE}"
TEMPLATES = "textual_inversion_templates"  # A1111's name, which extra_model_paths.yaml may also use
log = logging.getLogger("ti_train")


@dataclass(frozen=True)
class Place:
    """Where a run's embedding file goes.

    finished: this very run has already been trained, and its file is there. replaces: whether it may take the place of
    another.
    """

    folder: Path
    name: str
    resume: bool = False
    finished: bool = False
    replaces: bool = False


def folder_of(save: bool) -> Path:
    return embeddings_folder() if save else Path(folder_paths.get_temp_directory()) / "ti_train"


def asked_for(name: str, if_exists: str, save: bool) -> str:
    """The name of the run that is asked for; one that is there may have a name of an older version."""
    return name_in(folder_of(save), name) if if_exists in (CONTINUE, USE) else name


def place(name: str, if_exists: str, save: bool, identity: dict[str, Any]) -> Place:
    """The place of a run. name: checked. identity: what makes it this very run, whatever its name (see RunFiles)."""
    folder = folder_of(save)
    if if_exists == USE:
        there = trained_before(folder, name, identity)
        return there or numbered_place(folder, name)
    if if_exists == NEW_NUMBER:
        return numbered_place(folder, name)
    resume = RunFiles(folder, name, {}).exist and if_exists == CONTINUE
    return Place(folder, name, resume, replaces=if_exists == REPLACE)


def numbered_place(folder: Path, name: str) -> Place:
    """Under the name or its next free number; a run of the name that has not ended is not forgotten."""
    free = free_name(folder, name)
    if free != name and RunFiles(folder, name, {}).state.exists():
        log.info("A run of '%s' has not ended. It can be continued %s. Now '%s' is trained.", name, TO_CONTINUE, free)
    return Place(folder, free)


def trained_before(folder: Path, name: str, identity: dict[str, Any]) -> Place | None:
    """This very run under the name or its numbers, interrupted or finished."""
    for candidate in islice(numbered(name), 1 + sum(1 for _ in folder.glob(f"{glob.escape(name)}*"))):
        files = RunFiles(folder, candidate, identity)
        if files.has_finished():  # first: a run that was stopped and kept could be resumed too
            return Place(folder, candidate, finished=True)
        if files.can_resume():
            return Place(folder, candidate, resume=True)
    return None


def embeddings_folder() -> Path:
    return Path(folder_paths.get_folder_paths("embeddings")[0])


def template_files() -> dict[str, Path]:
    """The template files by name, with extension."""
    folder_paths.add_model_folder_path(TEMPLATES, str(Path(folder_paths.models_dir) / TEMPLATES))
    names = (name for name in folder_paths.get_filename_list(TEMPLATES) if name.lower().endswith(".txt"))
    return {name: Path(path) for name in names if (path := folder_paths.get_full_path(TEMPLATES, name))}


def embedding_files() -> list[str]:
    """The readable files, by their path in the embeddings folders."""
    found = {
        file
        for folder in folder_paths.get_folder_paths("embeddings")
        for file in folder_paths.recursive_search(folder, excluded_dir_names=[".git"])[0]
        if file.lower().endswith(READABLE)
    }
    embeddings = {file for file in found if not file.lower().endswith(PICTURES)}
    covered = {Path(file).with_suffix("") for file in embeddings}  # an image of the same name is its preview
    previews = {f for f in found - embeddings if Path(f).with_suffix("") in covered or ".preview." in f.lower()}
    return sorted(found - previews)


def free_name(folder: Path, name: str, parts: Sequence[str] = ("",)) -> str:
    """`name`, or name-2, name-3 ...: the first that no file has, whatever its extension and folder.

    `embedding:cat` finds pets/cat too, so a name is taken in all folders. parts: the suffixes of its files' names, if
    it is saved as several files.
    """
    taken = {name_key(Path(file).stem) for file in folder_paths.get_filename_list("embeddings")}
    beside = (folder / name).parent.glob("*")
    taken |= {name_key(file.stem) for file in beside if file.suffix != ".csv"}  # a step log alone takes none
    return next(
        candidate
        for candidate in numbered(name)
        if not any(name_key(bare_name(candidate) + part) in taken for part in parts)
    )


def digest(files: Iterable[Path]) -> str:
    """Hash of names and contents for ComfyUI's cache: a file with a new date only is the same."""
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name}\0".encode() + hashed(file).digest())
    return total.hexdigest()
