"""A run's previews for the tab: thumbnails in files, a limited number for each prompt."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from ..ti_train.drawing.thinned import Thinned
from ..ti_train.events import Preview
from ..ti_train.own_folder import OwnFolder, remove_abandoned
from . import folders

KEPT = 24  # of each prompt, evenly spaced over the run, and the latest
SIDE = 512  # pixels; the full size is in the run's records
FOLDER = "previews"  # beside the folder of records

Shown = tuple[str, str]  # a file and its caption


class Previews:
    """May be read while the run adds to it. The files are deleted with the object."""

    def __init__(self, prompts: tuple[str, ...]) -> None:
        self._kept = [(prompt, Thinned[tuple[int, Path]](KEPT)) for prompt in prompts]

    @cached_property
    def _folder(self) -> OwnFolder:
        return OwnFolder(folders.training() / FOLDER)

    def add(self, preview: Preview) -> None:
        """Raises OSError."""
        before = self._files()
        small = preview.image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        file = self._folder.path / f"step{preview.step:05d}-{preview.number}.jpg"
        small.save(file, quality=90)
        self._kept[preview.number][1].add((preview.step, file))
        for old in {*self._folder.path.iterdir()} - self._files() - before:  # a page may be reading those of before
            old.unlink()

    def _files(self) -> set[Path]:
        return {file for _, of_prompt in self._kept for _, file in of_prompt}

    @property
    def seen(self) -> int:
        """How many were added."""
        return sum(kept.seen for _, kept in self._kept)

    def shown(self) -> list[Shown]:
        """The kept ones, in the order of their steps."""
        kept = [(step, prompt, file) for prompt, of_prompt in self._kept for step, file in of_prompt]
        return [(str(file), f"step {step}: {prompt}") for step, prompt, file in sorted(kept, key=lambda one: one[0])]


def remove_left_behind(*_: Any) -> None:
    """Removes what WebUIs that were killed have left, when another starts."""
    remove_abandoned(folders.training() / FOLDER)
