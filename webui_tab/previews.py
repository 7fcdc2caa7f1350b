"""A run's previews for the tab: thumbnails in files, a limited number for each prompt."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..ti_train.drawing.thinned import Thinned
from ..ti_train.events import Preview

KEPT = 24  # of each prompt, evenly spaced over the run, and the latest
SIDE = 512  # pixels; the full size is in the run's records

Shown = tuple[str, str]  # a file and its caption


class Previews:
    """May be read while the run adds to it. The files are deleted with the object."""

    def __init__(self, prompts: tuple[str, ...]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ti-train-previews-", ignore_cleanup_errors=True)
        self._kept = [(prompt, Thinned[tuple[int, Path]](KEPT)) for prompt in prompts]

    def add(self, preview: Preview) -> None:
        small = preview.image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        file = Path(self._folder.name) / f"step{preview.step:05d}-{preview.number}.jpg"
        small.save(file, quality=90)
        self._kept[preview.number][1].add((preview.step, file))

    @property
    def seen(self) -> int:
        """How many were added."""
        return sum(kept.seen for _, kept in self._kept)

    def shown(self) -> list[Shown]:
        """The kept ones, in the order of their steps."""
        kept = [(step, prompt, file) for prompt, of_prompt in self._kept for step, file in of_prompt]
        return [(str(file), f"step {step}: {prompt}") for step, prompt, file in sorted(kept, key=lambda one: one[0])]
