"""Live training runs for ComfyUI's page: events for open pages, and snapshots for pages that open later.

Nothing here affects training, and nothing waits for a page: the server drops events that no client receives.
Memory stays bounded however long a run is: curves and previews are thinned, the previews themselves are on disk, and
only the last runs are kept.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import PurePosixPath
from time import monotonic, time
from typing import Any

import comfy.model_management as management
import comfy.utils
from comfy_execution.utils import get_executing_context
from latent_preview import MAX_PREVIEW_RESOLUTION

from ...ti_train.drawing.loss_curves import LossCurves
from ...ti_train.drawing.thinned import ThinnedByKey
from ...ti_train.embedding import Embedding
from ...ti_train.events import Done, Event, Preview, Step, Warning
from ...ti_train.host import Host, Slot
from ...ti_train.prompts import PLACEHOLDER, placeholders_of, slots
from ...ti_train.training.config import OPTIONS, TrainConfig
from ...ti_train.training.provenance import RUN
from ...ti_train.training.session import Session
from . import clients
from .records import Record, delete_old

PREVIEWS, WARNINGS, RUNS = 24, 20, 4  # kept: per prompt, per run, in memory
PAUSE, LOOK_UP = 0.25, 5.0  # least seconds between two messages, and between two searches for the nearest words
MEASURED = ("norm", "vocabulary_norm", "nearest", "best")  # of the last step, and the best one
SHARE = 0.01  # of a run's time that those searches may take: on a CPU each one converts the whole token table
log = logging.getLogger("ti_train")


class LiveRun:
    """One training run. `stop` is set when a page requests Stop and keep.

    It outlives the run and holds no reference to the model, so that ComfyUI can free it.
    """

    def __init__(
        self,
        config: TrainConfig,
        node: str,
        saved: bool,
        record: Record,
        data: dict[str, int],
        syntax: bool = True,
    ) -> None:
        """record: also one that an earlier run has begun: then this one has its id and its previews.

        syntax: whether ComfyUI reads `embedding:name` for this model; else the prompt is for Load Embedding.
        """
        self.record, earlier = record, record.read()
        self.id, self.stop = record.id, threading.Event()
        self.bar = comfy.utils.ProgressBar(config.steps, node_id=node)
        self.config, self.syntax = config, syntax
        executing = get_executing_context()
        self.facts = {
            "id": self.id,
            "node": node,
            "prompt_id": executing.prompt_id if executing else None,
            "began": time(),
            "settings": changed_settings(config),
            "name": config.name,
            "steps": config.steps,
            "saved": saved,
            "syntax": syntax,
            "data": data,
            "prompt": self.prompt_with(config.name),
        }
        self.status, self.message, self.outcome = "running", "", ""
        self.complete = False  # whether the run has ended as it was to end
        self.left = ""  # what a run that has ended early has left, and how to continue it
        self.curves, self.added = LossCurves(), 0  # added: steps of the session that are in the curves
        self.earlier: list[dict[str, Any]] = earlier.get("previews", [])
        self.previews: ThinnedByKey[dict[str, Any]] = ThinnedByKey(PREVIEWS)
        self.next_preview = 0
        self.warnings: deque[str] = deque(maxlen=WARNINGS)
        self.numbers: dict[str, Any] = {"step": 0}
        self.began = self.sent = monotonic()
        self.look_up_at = 0.0

    def prompt_with(self, name: str) -> str:
        """The first preview prompt with the embedding of this name, for the clipboard."""
        prompts = self.config.preview_prompts
        marks = dict.fromkeys(placeholders_of(self.config.name), name)
        written = f"embedding:{name}" if self.syntax else PLACEHOLDER
        pieces = slots(prompts[0] if prompts else f"a photo of {PLACEHOLDER}", marks)
        return "".join(written if isinstance(piece, Slot) else piece for piece in pieces)

    def snapshot(self) -> dict[str, Any]:
        """The whole state of the run, as JSON."""
        state = {"status": self.status, "message": self.message, "stopping": self.stop.is_set()}
        state |= {"previews": list(self.previews), "warnings": list(self.warnings)}
        curves: dict[str, Any] = {
            "loss": list(self.curves.loss),
            "evaluations": list(self.curves.validation_losses),
            "band": list(self.curves.band),
        }
        return self.facts | self.numbers | state | curves

    def send(self, event: str, data: dict[str, Any]) -> None:
        clients.send(event, {"run": self.id} | data)

    def show(self, event: Event, session: Session, host: Host) -> None:
        match event:
            case Step():
                self.bar.update_absolute(event.step, self.bar.total)
                self.step(event, session, host)
            case Preview():
                picture = ("JPEG", event.image, MAX_PREVIEW_RESOLUTION)
                self.bar.update_absolute(self.bar.current, self.bar.total, picture)
                self.preview(event)
            case Warning():
                log.warning(event.message)
                self.warn(event.message)
            case Done():
                log.info("Trained '%s' in %.0f s: %s. %s", self.facts["name"], event.seconds, event.path, event.why)
                self.done(event, session)

    def step(self, step: Step, session: Session, host: Host) -> None:
        now = monotonic()
        if not self.added:
            self.begin(step.step)
        for one in session.steps[self.added :]:  # a resumed session has those of the interrupted run too
            self.curves.add(one)
        self.added = len(session.steps)
        last = step.step == self.facts["steps"]
        if step.embedding and (now > self.look_up_at or last):
            self.numbers |= nearest_words(host, step.embedding)
            self.look_up_at = now + max(LOOK_UP, (monotonic() - now) / SHARE)
        self.numbers |= {
            "step": step.step,
            "norm": step.norm,
            "rate": session.pace.rate,
            "elapsed": now - self.began,
            "left": session.pace.seconds_left,
        }
        self.numbers |= {"best": session.kept} if session.kept else {}
        if last or now - self.sent > PAUSE:
            self.sent = now
            curves: dict[str, Any] = {
                "loss": self.curves.loss.changes(),
                "evaluations": self.curves.validation_losses.changes(),
                "band": self.curves.band.changes(),
            }
            self.send("progress", self.numbers | curves)
            self.progress_text(step)

    def begin(self, first: int) -> None:
        """Takes over the previews that the interrupted run has made before its first step of now."""
        for picture in self.earlier:
            self.next_preview = picture["number"] + 1
            if picture["step"] < first:
                self.previews.add(prompt_of(picture), picture)
        self.record_state()
        self.send("run", self.snapshot())

    def done(self, done: Done, session: Session) -> None:
        """Which step's embedding is in the file, why, and whether it is better than the untrained one."""
        self.complete = done.complete
        self.outcome = done.why if done.improved is not False else self.warnings[-1]
        self.numbers |= {"kept": done.kept, "why": done.why, "improved": done.improved, "file": done.path.name}
        self.numbers[RUN] = done.embedding.provenance[RUN]  # by which a later "use it if it is there" finds the record
        self.numbers |= {"best": session.kept} if session.kept else {}
        # NAME-worse, if an earlier embedding was better
        self.facts["prompt"] = self.prompt_with(PurePosixPath(self.config.name).with_name(done.path.stem).as_posix())

    def progress_text(self, step: Step) -> None:
        rate, left = self.numbers["rate"], self.numbers["left"]
        parts = [f"step {step.step} of {self.facts['steps']}"]
        parts += [f"loss {step.loss:#.4g}"] if step.loss is not None else []
        parts += [f"{rate:.2f} steps/s", f"{timedelta(seconds=round(left))} left"] if rate else []
        clients.send_text(" · ".join(parts), str(self.facts["node"]))

    def preview(self, preview: Preview) -> None:
        number, self.next_preview = self.next_preview, self.next_preview + 1
        picture = {
            "number": number,
            "step": preview.step,
            "prompt": preview.prompt,
            "prompt_number": preview.number,
            "width": preview.image.width,
            "height": preview.image.height,
        }
        self.previews.add(preview.number, picture)
        kept = [p["number"] for p in self.previews]
        try:
            self.record.add(number, preview)
            self.record.keep_only(kept)
        except OSError as error:
            self.warn(f"The preview of step {preview.step} could not be saved ({error}), so the page cannot show it.")
        self.record_state()
        self.send("preview", picture | {"kept": kept})

    def record_state(self) -> None:
        try:
            self.record.write(self.snapshot())
        except OSError as error:
            log.warning("The record of this run could not be written (%s).", error)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.send("warning", {"message": message})

    def already_trained(self, step: int, session: Session) -> None:
        """Lists a run that need not be trained again, as it was seen when it was. step: of its embedding."""
        for one in session.steps:
            self.curves.add(one)
        for picture in self.earlier:
            self.previews.add(prompt_of(picture), picture)
        recorded = self.record.read()
        self.status, self.numbers = "used", {"best": session.kept} if session.kept else {}  # rounded, as the table is
        self.numbers |= {key: recorded[key] for key in MEASURED if key in recorded} | {"step": step}
        list_newest(self)
        self.send("run", self.snapshot())

    def end(self, status: str, message: str = "") -> None:
        self.status, self.message = status, message
        self.record_state()
        delete_old()
        self.send("run", self.snapshot())


runs: deque[LiveRun] = deque(maxlen=RUNS)  # take list(runs): another thread may add one


@contextmanager
def followed(run: LiveRun) -> Iterator[LiveRun]:
    """Lists a run for the pages, and sends how it starts and ends."""
    list_newest(run)
    run.send("run", run.snapshot())
    try:
        yield run
    except management.InterruptProcessingException:
        run.end("cancelled", run.left)
        raise
    except BaseException as error:
        run.end("failed", f"{error} {run.left}".strip())
        raise
    run.end("done" if run.complete else "stopped", run.outcome)


def prompt_of(picture: dict[str, Any]) -> Hashable:
    """Tells the prompts of a run's previews apart; an earlier version recorded their texts only."""
    number: Hashable = picture.get("prompt_number", picture["prompt"])
    return number


def list_newest(run: LiveRun) -> None:
    """Lists a run for the pages, in the place of what was listed under its id."""
    for earlier in [other for other in list(runs) if other.id == run.id]:
        runs.remove(earlier)
    runs.append(run)


def changed_settings(config: TrainConfig) -> dict[str, Any]:
    """The options that differ from their defaults, and those that have none."""
    given = {name: getattr(config, name) for name in OPTIONS}
    return {name: value for name, value in given.items() if value != OPTIONS[name].default}


def nearest_words(host: Host, embedding: Embedding) -> dict[str, Any]:
    """Median norm of the model's own tokens, and the three nearest words of each of the first three vectors."""
    encoder, vectors = next(iter(embedding.vectors.items()))
    vocabulary = host.vocabulary(encoder)
    near = [vocabulary.nearest(row.to(vocabulary.table.device), 3) for row in vectors[:3]]
    return {"vocabulary_norm": float(vocabulary.norms.median()), "nearest": near}
