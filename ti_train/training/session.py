"""A training session: what the command line, the node and the WebUI's job have in common.

They iterate over `Session.train()`, display each event, and may stop at any of them. The session writes the records,
keeps the best embedding and estimates the time left.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..data.dataset import Dataset, encode_pictures, find_pictures, read_pictures
from ..drawing.loss_plot import loss_plot
from ..embedding import Embedding
from ..events import Done, Event, Preview, Step
from ..formats import save_embedding
from ..host import Host
from ..prompts import Templates
from .checkpoint import RunFiles
from .config import TrainConfig
from .out_of_memory import train_in_memory
from .pace import Pace
from .step_log import StepLog, check_step_log

log = logging.getLogger("ti_train")
Keep = Literal["last", "best"]
DEFAULT_KEEP: Keep = "last"  # of a completed run; an interrupted one keeps its best


def load_dataset(host: Host, folders: Mapping[Path, int], config: TrainConfig, warn: list[str]) -> Dataset:
    """Reads and encodes the images of some folders; appends to `warn` what cannot be used. Raises UserError.

    folders: folder -> how often its images occur in an epoch.
    """
    paths = [path for folder in folders for path in find_pictures(folder)]
    captions = Templates.load(config.templates).use_captions
    side = config.resolution or host.resolution
    pictures = read_pictures(paths, side, warn, captions, config.mask, config.square, folders)
    return encode_pictures(host, pictures, config.flip, warn)


@dataclass(frozen=True)
class Records:
    """The paths of a run's step log, loss plot and previews."""

    log: Path
    plot: Path
    previews: str  # prefix of their paths

    @classmethod
    def beside_embedding(cls, folder: Path, name: str) -> Records:
        return cls(folder / f"{name}.csv", folder / f"{name}-loss.png", f"{folder / name}-step")

    @classmethod
    def in_own_folder(cls, folder: Path) -> Records:
        return cls(folder / "loss.csv", folder / "loss.png", str(folder / "step"))

    def preview(self, step: int, number: int) -> Path:
        """The path of a preview. number: of the preview prompt, from 0."""
        return Path(f"{self.previews}{step:05d}-{number}.png")


@dataclass(frozen=True)
class Best:
    """The step with the lowest validation loss so far."""

    step: int
    validation_loss: float
    embedding: Embedding


class Session:
    """One run of train(). It holds neither model nor latents, so it may be kept after the run."""

    def __init__(
        self, config: TrainConfig, folder: Path, records: Records | None = None, keep: Keep = DEFAULT_KEEP
    ) -> None:
        """folder: of the embedding. keep: the embedding that a completed run leaves in its file. Raises UserError."""
        if records:
            check_step_log(records.log)
        self.config, self.records, self.keep = config, records, keep
        self.file = RunFiles(folder, config.name, {}).embedding
        self.steps: list[Step] = []  # without embeddings; with records, those of the interrupted run too
        self.best: Best | None = None
        self.done: Done | None = None
        self.pace = Pace(config.steps)
        self._log: StepLog | None = None

    def train(
        self,
        host: Host,
        dataset: Dataset,
        resume: bool = False,
        release: Callable[[], object] | None = None,
    ) -> Generator[Event, None, None]:
        """The events of train_in_memory(), each after it is recorded. Raises what that raises."""
        try:
            with closing(train_in_memory(host, dataset, self.config, self.file.parent, resume, release)) as events:
                for event in events:
                    yield self._recorded(event)
        finally:
            self._close_records()

    @property
    def loss(self) -> float | None:
        """The latest training loss."""
        return next((step.loss for step in reversed(self.steps) if step.loss is not None), None)

    @property
    def validation_loss(self) -> float | None:
        """The latest validation loss."""
        return next((step.validation_loss for step in reversed(self.steps) if step.validation_loss is not None), None)

    def keep_best(self) -> int | None:
        """Replaces the last step's embedding in the file by the best one; a resumed run continues from the last step.

        Returns the step of the embedding in the file, or None before the first step. Raises OSError.
        """
        if self.best:
            save_embedding(self.best.embedding, self.file)
            return self.best.step
        return self.steps[-1].step if self.steps else None

    def _recorded(self, event: Event) -> Event:
        match event:
            case Step():
                self._add(event)
            case Preview() if self.records:
                number = self.config.preview_prompts.index(event.prompt)
                event.image.save(self.records.preview(event.step, number))
            case Done():
                if self.keep == "best" and self.best:
                    self.keep_best()
                    event = replace(event, embedding=self.best.embedding)
                self.done = event
        return event

    def _add(self, step: Step) -> None:
        self.pace.completed(step.step)
        if self.records:
            if self._log is None:
                self._log = StepLog(self.records.log, step.step - 1)
                self.steps += self._log.earlier
            self._log.add(step)
        self.steps.append(replace(step, embedding=None))
        if (
            step.step == 0
            or step.embedding is None
            or step.validation_loss is None
            or not math.isfinite(step.validation_loss)
        ):
            return  # step 0 is untrained
        if self.best is None or step.validation_loss < self.best.validation_loss:
            self.best = Best(step.step, step.validation_loss, step.embedding)

    def _close_records(self) -> None:
        """Logs write errors: a full disk must not hide why the run ended."""
        if self._log is None or self.records is None:
            return
        self._log.close()
        try:
            loss_plot(self.steps, self.config.name).save(self.records.plot)
        except OSError as error:
            log.warning("Could not write '%s' (%s).", self.records.plot, error.strerror or error)
