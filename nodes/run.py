"""A training session in a node: progress, Cancel, Stop and keep."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import comfy.model_management as management
import torch
from PIL import Image

from ..ti_train.data.dataset import Dataset
from ..ti_train.drawing.thinned import ThinnedByKey
from ..ti_train.embedding import Embedding, number_in, step_in
from ..ti_train.events import Preview, Step, Warning
from ..ti_train.formats import load_embedding
from ..ti_train.hosts.comfy.host import ComfyHost
from ..ti_train.names import old_name
from ..ti_train.training.config import TrainConfig
from ..ti_train.training.session import Records, Session
from ..ti_train.training.step_log import read_steps
from .files import TO_CONTINUE, Place, embeddings_folder
from .page.live import LiveRun, followed, prompt_of
from .page.records import Record, interrupted_run, new_record, run_that_wrote

log = logging.getLogger("ti_train")
MOST_PREVIEWS = 512 * 2**20  # bytes of the output with the previews: 170 of 512 x 512 pixels


def run_training(
    host: ComfyHost,
    dataset: Dataset,
    config: TrainConfig,
    place: Place,
    hidden: Any,
    facts: dict[str, int],
    remarks: list[str],
) -> tuple[Embedding, Session, list[Image.Image]]:
    """Trains to the last step, or until a page requests Stop and keep. The images are previews, evenly spaced.

    hidden: the node's unique_id. facts: what it trains with, for the page. remarks: for the user.
    """
    folder = place.folder
    record = (interrupted_run(config.name) if place.resume else None) or new_record()
    live = live_run(host, config, folder, hidden, record, facts)
    session = Session(config, folder, Records(folder / f"{config.name}.csv", live.record.folder / "loss.png", None))
    previews: ThinnedByKey[Image.Image] | None = None
    with followed(live):
        for remark in remarks:
            live.show(Warning(remark), session, host)
        try:
            stop, replaces = live.stop.is_set, place.replaces
            run = session.train(host, dataset, place.resume, release=release, stop=stop, replaces=replaces)
            with closing(run) as events:
                for event in events:
                    live.show(event, session, host)
                    if isinstance(event, Preview):
                        previews = previews or ThinnedByKey(most_previews(event.image, config))
                        previews.add(event.number, event.image)
                    management.throw_exception_if_processing_interrupted()
        except BaseException:  # InterruptProcessingException too
            if session.trained:
                left = session.saved(TO_CONTINUE)
                log.warning("The training of '%s' has ended early. %s", config.name, left)
                live.left = left.replace(f"{folder}{os.sep}", "")  # the page gets no paths of the server
            raise
        images = list(previews or ())
        if previews and previews.seen > len(images):
            live.warn(
                f"The output 'previews' has {len(images)} of {previews.seen} previews, evenly spaced, to save memory."
            )
        assert session.done
        return session.done.embedding, session, images


def most_previews(image: Image.Image, config: TrainConfig) -> int:
    """How many previews of each prompt the output may have: an even number."""
    pixels = image.width * image.height * len(config.preview_prompts)
    return max(2, MOST_PREVIEWS // (pixels * 3 * 4) // 2 * 2)


def use_finished(
    host: ComfyHost, config: TrainConfig, folder: Path, hidden: Any, facts: dict[str, int], remarks: list[str]
) -> tuple[Embedding, Session, list[Image.Image]]:
    """The embedding of a run that was trained before, its session, and the previews that are recorded of it."""
    session = Session(config, folder)
    embedding = load_embedding(session.file)
    log.info("'%s' was trained before with these settings and images, and is used as it is.", config.name)
    step, measured = step_in(embedding.provenance) or 0, number_in(embedding.provenance, "validation_loss")
    session.kept = None if measured is None else (step, measured)
    session.steps += steps_of(folder / f"{config.name}.csv", session.kept)
    live = live_run(host, config, folder, hidden, run_that_wrote(embedding) or new_record(), facts)
    live.already_trained(step, session)
    for remark in remarks:
        live.show(Warning(remark), session, host)
    return embedding, session, recorded_previews(live)


def steps_of(table: Path, kept: tuple[int, float] | None) -> list[Step]:
    """The steps of the run that has left this validation loss; [] if the table is not (or no longer) that run's."""
    steps = read_steps(table)
    return steps if kept is None or any(step.validation_loss == kept[1] for step in steps) else []


def recorded_previews(live: LiveRun) -> list[Image.Image]:
    there = [(prompt_of(p), image) for p in live.previews if (image := live.record.image(p["number"]))]
    if not there:
        return []
    kept = ThinnedByKey[Image.Image](most_previews(there[0][1], live.config))
    for prompt, image in there:
        kept.add(prompt, image)
    return list(kept)


def live_run(
    host: ComfyHost, config: TrainConfig, folder: Path, hidden: Any, record: Record, facts: dict[str, int]
) -> LiveRun:
    syntax = host.reads_syntax and not old_name(config.name)
    return LiveRun(config, str(hidden.unique_id), folder == embeddings_folder(), record, facts, syntax)


def release() -> None:
    """Unloads all models from the GPU; the next training step loads its models again."""
    with torch.inference_mode():  # as the host does when it moves weights
        management.unload_all_models()
