"""Live training runs for ComfyUI's page: events for open pages, and snapshots for pages that open later.

Nothing here affects training, and nothing waits for a page: the server drops events that no client receives.
Memory stays bounded however long a run is: curves and previews are thinned, and only the last runs are kept.
"""

from __future__ import annotations

import io
import logging
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

import comfy.model_management as management
import comfy.utils
from latent_preview import MAX_PREVIEW_RESOLUTION
from server import PromptServer

from ...ti_train.drawing.loss_curves import LossCurves
from ...ti_train.drawing.thinned import Thinned
from ...ti_train.embedding import Embedding
from ...ti_train.events import Done, Event, Preview, Step, Warning
from ...ti_train.host import Host
from ...ti_train.prompts import PLACEHOLDER
from ...ti_train.training.config import TrainConfig
from ...ti_train.training.session import Session

PREVIEWS, WARNINGS, RUNS = 24, 20, 4  # kept: per prompt, per run, in total
PAUSE, LOOK_UP = 0.25, 5.0  # least seconds between two messages, and between two searches for the nearest words
SHARE = 0.01  # of a run's time that those searches may take: on a CPU each one converts the whole token table
log = logging.getLogger("ti_train")


class LiveRun:
    """One training run. `stop` is set when a page requests Stop and keep.

    It outlives the run and holds no reference to the model, so that ComfyUI can free it.
    """

    def __init__(self, config: TrainConfig, node: str, workflow: str | None, saved: bool, syntax: bool = True) -> None:
        """syntax: whether ComfyUI reads `embedding:name` for this model; else the prompt is for Load Embedding."""
        self.id, self.stop = uuid.uuid4().hex, threading.Event()
        self.bar = comfy.utils.ProgressBar(config.steps, node_id=node)
        first = config.preview_prompts[0] if config.preview_prompts else f"a photo of {PLACEHOLDER}"
        written = f"embedding:{config.name}" if syntax else PLACEHOLDER
        self.facts = {
            "id": self.id,
            "node": node,
            "workflow": workflow,
            "name": config.name,
            "steps": config.steps,
            "saved": saved,
            "syntax": syntax,
            "prompt": first.replace(f"<{config.name}>", written).replace(PLACEHOLDER, written),
        }
        self.status, self.message = "running", ""
        self.curves = LossCurves()
        self.previews: dict[str, Thinned[dict[str, Any]]] = {}
        self.warnings: deque[str] = deque(maxlen=WARNINGS)
        self.numbers: dict[str, Any] = {"step": 0}
        self.began = self.sent = monotonic()
        self.look_up_at = 0.0

    def snapshot(self) -> dict[str, Any]:
        """The whole state of the run, as JSON."""
        seen = [{key: p[key] for key in ("number", "step", "prompt", "width", "height")} for p in self._pictures()]
        state = {"status": self.status, "message": self.message, "stopping": self.stop.is_set()}
        state |= {"previews": seen, "warnings": list(self.warnings)}
        curves = {"loss": list(self.curves.loss), "evaluations": list(self.curves.validation_losses)}
        return self.facts | self.numbers | state | curves

    def send(self, event: str, data: dict[str, Any]) -> None:
        server: Any = getattr(PromptServer, "instance", None)
        if server is not None:
            server.send_sync(f"ti_train.{event}", {"run": self.id} | data)

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
                log.info("Trained '%s' in %.0f s: %s", self.facts["name"], event.seconds, event.path)

    def step(self, step: Step, session: Session, host: Host) -> None:
        now, best = monotonic(), session.best
        self.curves.add(step)
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
        self.numbers |= {"best": [best.step, best.validation_loss]} if best else {}
        if last or now - self.sent > PAUSE:
            self.sent = now
            curves = {"loss": self.curves.loss.changes(), "evaluations": self.curves.validation_losses.changes()}
            self.send("progress", self.numbers | curves)
            self.progress_text(step)

    def progress_text(self, step: Step) -> None:
        """Sends the node's progress text, for clients that do not handle this pack's events."""
        rate, left = self.numbers["rate"], self.numbers["left"]
        parts = [f"step {step.step} of {self.facts['steps']}"]
        parts += [f"loss {step.loss:.4f}"] if step.loss is not None else []
        parts += [f"{rate:.2f} steps/s", f"{timedelta(seconds=round(left))} left"] if rate else []
        server: Any = getattr(PromptServer, "instance", None)
        if server is not None:
            server.send_progress_text(" · ".join(parts), self.facts["node"], server.client_id)

    def preview(self, preview: Preview) -> None:
        data = io.BytesIO()
        preview.image.convert("RGB").save(data, "JPEG", quality=92)
        number = sum(of_prompt.seen for of_prompt in self.previews.values())
        picture = {
            "number": number,
            "step": preview.step,
            "prompt": preview.prompt,
            "width": preview.image.width,
            "height": preview.image.height,
        }
        self.previews.setdefault(preview.prompt, Thinned(PREVIEWS)).add(picture | {"jpeg": data.getvalue()})
        self.send("preview", picture | {"kept": [p["number"] for p in self._pictures()]})

    def picture(self, number: int) -> bytes | None:
        """A preview as a JPEG file; None if it is no longer kept."""
        return next((p["jpeg"] for p in self._pictures() if p["number"] == number), None)

    def _pictures(self) -> list[dict[str, Any]]:
        """The kept previews, oldest first."""
        kept = (picture for of_prompt in self.previews.values() for picture in of_prompt)
        return sorted(kept, key=lambda picture: int(picture["number"]))

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.send("warning", {"message": message})

    def end(self, status: str, message: str = "") -> None:
        self.status, self.message = status, message
        self.send("run", self.snapshot())


runs: deque[LiveRun] = deque(maxlen=RUNS)


@contextmanager
def followed(run: LiveRun) -> Iterator[LiveRun]:
    """Lists a run for the pages, and sends how it starts and ends."""
    runs.append(run)
    run.send("run", run.snapshot())
    try:
        yield run
    except management.InterruptProcessingException:
        run.end("cancelled")
        raise
    except BaseException as error:
        run.end("failed", str(error))
        raise
    run.end("stopped" if run.numbers["step"] < run.facts["steps"] else "done")


def nearest_words(host: Host, embedding: Embedding) -> dict[str, Any]:
    """Median norm of the model's own tokens, and the three nearest words of each of the first three vectors."""
    encoder, vectors = next(iter(embedding.vectors.items()))
    vocabulary = host.vocabulary(encoder)
    near = [vocabulary.nearest(row.to(vocabulary.table.device), 3) for row in vectors[:3]]
    return {"vocabulary_norm": float(vocabulary.norms.median()), "nearest": near}
