"""A training session: what the command line, the node and the WebUI's job have in common.

They iterate over `Session.train()`, display each event, and may stop at any of them. The session writes the records,
knows which step's embedding is kept (see keeping.py) and estimates the time left.
"""

from __future__ import annotations

import glob
import io
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.captions import CaptionReader
from ..data.dataset import Dataset, encode_pictures, find_pictures, read_pictures
from ..data.listing import Listing
from ..drawing.loss_curves import LossCurves
from ..drawing.loss_plot import loss_plot
from ..errors import UserError
from ..events import Done, Event, Preview, Step
from ..files import remove_unfinished, remove_unfinished_in, write_atomically
from ..formats import write_embedding
from ..host import Host
from ..prompts import Templates
from ..text import Remarks
from .checkpoint import RunFiles
from .config import TrainConfig
from .out_of_memory import train_in_memory
from .pace import Pace
from .passes import ALONE, Passes
from .sides import side_for
from .step_log import StepLog, check_step_log
from .widgets import FROM_PRESET

log = logging.getLogger("ti_train")


def load_dataset(host: Host, folders: Mapping[Path, int], config: TrainConfig, warn: Remarks) -> Dataset:
    """Reads and encodes the images of some folders; appends to `warn` what cannot be used. Raises UserError.

    folders: folder -> how often its images occur in an epoch.
    """
    paths = [path for folder in folders for path in find_pictures(folder)]
    templates = Templates.load(config.templates)
    warn += unused_captions(_captions_of(paths), templates, config.templates)
    side = side_for(host, config, warn)
    pictures = read_pictures(paths, side, warn, templates.use_captions, config.mask, config.square, folders, host.unit)
    return encode_pictures(host, pictures, config.flip, warn)


def _captions_of(paths: Sequence[Path]) -> list[str]:
    readers = {folder: CaptionReader(Listing.of(folder), Remarks()) for folder in {path.parent for path in paths}}
    return [readers[path.parent].caption(path) or "" for path in paths]


def unused_captions(captions: Sequence[str], templates: Templates, source: str) -> list[str]:
    """A remark if prompts leave out some of the captions. source: the value of the option."""
    count = sum(bool(caption.strip()) and not templates.uses(caption) for caption in captions)
    remark = (
        f"{count} image(s) have a caption, which {templates_named(source)} do not use. To use them, choose the "
        "templates captions or style-captions, or a file with [filewords]."
    )
    return [remark] if count else []


def templates_named(templates: str) -> str:
    """The templates of the option's value, in a sentence."""
    return "the preset's templates" if templates == FROM_PRESET else f"the templates '{Path(templates).name}'"


@dataclass(frozen=True)
class Records:
    """The paths of a run's step log, loss plot and previews."""

    log: Path
    plot: Path
    previews: str | None  # prefix of their paths; None: they are not saved

    @classmethod
    def beside_embedding(cls, folder: Path, name: str) -> Records:
        return cls(folder / f"{name}.csv", folder / f"{name}-loss.png", f"{folder / name}-step")

    @classmethod
    def in_own_folder(cls, folder: Path) -> Records:
        return cls(folder / "loss.csv", folder / "loss.png", str(folder / "step"))

    def preview(self, step: int, number: int) -> Path:
        """The path of a preview. number: of the preview prompt, from 0."""
        return Path(f"{self.previews}{step:05d}-{number}.png")

    def remove_unfinished(self) -> None:
        """Removes what killed runs have left of them; for the only run of this name."""
        for file in (self.log, self.plot):
            remove_unfinished(file)
        if self.previews:
            preview = Path(self.previews)
            remove_unfinished_in(preview.parent, f"{glob.escape(preview.name)}*.png")


class Session:
    """One run of train(). It holds neither model nor latents, so it may be kept after the run."""

    def __init__(self, config: TrainConfig, folder: Path, records: Records | None = None) -> None:
        """folder: of the embedding. Raises UserError."""
        if records:
            check_step_log(records.log)
        self.config, self.records = config, records
        self.files = RunFiles(folder, config.name, {})
        self.steps: list[Step] = []  # without embeddings; a resumed run's begin with those of its step log
        self.curves = LossCurves()  # of all these: a page asks every second, after however many steps
        self.kept: tuple[int, float] | None = None  # the step whose embedding is kept, and its validation loss
        self.done: Done | None = None
        self._resumed = False  # whether the state of an interrupted run was read
        self.pace = Pace(config.steps)
        self._log: StepLog | None = None

    @property
    def file(self) -> Path:
        """The embedding's file."""
        return self.done.path if self.done else self.files.embedding

    def train(
        self,
        host: Host,
        dataset: Dataset,
        resume: bool = False,
        *,
        release: Callable[[], object] | None = None,
        stop: Callable[[], bool] = lambda: False,
        passes: Passes = ALONE,
        replaces: bool = True,
    ) -> Generator[Event, None, None]:
        """The events of train_in_memory(), each after it is recorded. Raises what that raises."""
        events = train_in_memory(
            host,
            dataset,
            self.config,
            self.files.folder,
            resume,
            release=release,
            stop=stop,
            passes=passes,
            replaces=replaces,
        )
        try:
            with closing(events):
                for event in events:
                    self._resumed = resume
                    self._record(event)
                    yield event
        except BaseException as error:
            self._resumed |= resume and not isinstance(error, UserError)  # which may be that there is nothing to resume
            raise
        finally:
            self._close_records()

    @property
    def trained(self) -> bool:
        """Whether a step is complete, of this run or of the interrupted one that it resumes."""
        return self._resumed or (bool(self.steps) and self.steps[-1].step > 0)

    @property
    def loss(self) -> float | None:
        """The latest training loss."""
        return next((step.loss for step in reversed(self.steps) if step.loss is not None), None)

    @property
    def validation_loss(self) -> float | None:
        """The latest validation loss."""
        return next((step.validation_loss for step in reversed(self.steps) if step.validation_loss is not None), None)

    def saved(self, how: str) -> str:
        """What an interrupted run has left on disk, and how to continue it, in the words of the host."""
        left = self.files.interrupted() if self.trained else None
        if left is None:
            there = f"; '{self.file}' is unchanged" if self.file.exists() else ""
            return f"No step was completed, so there is nothing to continue{there}. Start the training again."
        there = f"; the earlier '{self.file.name}' is unchanged" if self.file.exists() else ""
        saved = f"in '{self.files.state}'{there}" if left.kept is None else f"in '{self.file}'"
        return f"Step {left.kept or left.step} is saved {saved}. Continue from step {left.step} {how}."

    def _record(self, event: Event) -> None:
        match event:
            case Step():
                self._add(event)
            case Preview() if self.records and self.records.previews:
                file = self.records.preview(event.step, event.number)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_embedding(event.embedding, file, "png", picture=event.image)
            case Done():
                if self.records and self._log is None:  # resumed after its last step, whose plot was not drawn
                    self._log = self._opened(self.records, self.config.steps)
                self.done, self.kept = event, self.kept and (event.kept, self.kept[1])

    def _add(self, step: Step) -> None:
        self.pace.completed(step.step)
        if self.records and step.step:  # a run that ends before its first step leaves the log of an earlier one
            self._log = self._log or self._opened(self.records, step.step - 1)
            self._log.add(step)
        self.steps.append(replace(step, embedding=None))
        self.curves.add(step)
        self.kept = step.kept or self.kept

    def _opened(self, records: Records, last: int) -> StepLog:
        """The step log, with the steps so far. last: the last step before that which is to be added."""
        records.remove_unfinished()  # the run has locked its name
        opened = StepLog(records.log, last)
        for untrained in self.steps:
            opened.add(untrained)
        self.steps[:0] = opened.earlier
        for earlier in opened.earlier:  # only a resumed run has some, and no untrained step
            self.curves.add(earlier)
        return opened

    def _close_records(self) -> None:
        """Logs write errors: a full disk must not hide why the run ended."""
        if self._log is None or self.records is None:
            return
        with suppress(OSError):  # the line of a failed write, which has been raised
            self._log.close()
        drawn = io.BytesIO()
        try:
            loss_plot(self.steps, self.config.name, self.kept).save(drawn, "PNG")
            write_atomically(self.records.plot, drawn.getvalue())
        except OSError as error:
            log.warning("Could not write '%s' (%s).", self.records.plot, error.strerror or error)
