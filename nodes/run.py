"""Driving the core's loop from a node: progress, Cancel, Stop and keep."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.utils
import torch
from latent_preview import MAX_PREVIEW_RESOLUTION
from PIL import Image

from ..ti_train.data.dataset import Dataset
from ..ti_train.embedding import Embedding
from ..ti_train.events import Checkpoint, Done, Preview, Step, Warning
from ..ti_train.formats import load_embedding, save_embedding
from ..ti_train.host import Host
from ..ti_train.training.checkpoint import RunFiles
from ..ti_train.training.config import TrainConfig
from ..ti_train.training.out_of_memory import train_in_memory
from .files import embeddings_folder
from .page.live import LiveRun, Watched, followed

log = logging.getLogger("ti_train")


@dataclass
class Run:
    """What a training has brought so far."""

    steps: list[Step] = field(default_factory=list)
    previews: list[Image.Image] = field(default_factory=list)
    embedding: Embedding | None = None


def learn(host: Host, dataset: Dataset, config: TrainConfig, folder: Path, resume: bool, hidden: Any) -> Run:
    """Trains to the end, or until a page asks to stop and keep. `hidden`: the node's unique_id and extra_pnginfo."""
    run, watched = Run(), Watched(host)
    workflow = ((hidden.extra_pnginfo or {}).get("workflow") or {}).get("id")
    live = LiveRun(config, str(hidden.unique_id), workflow, folder == embeddings_folder())
    with followed(live):
        consume(watched, dataset, config, folder, resume, run, live)
        if run.embedding is None:
            run.embedding = best_kept(live, RunFiles(folder, config.name, {}).embedding)
    return run


def best_kept(live: LiveRun, file: Path) -> Embedding:
    """After Stop and keep: the file of the last step becomes the best word so far by the noise-free loss."""
    last = load_embedding(file)
    if live.best is None:
        return last
    step, vectors = live.best
    norms = {encoder: [round(n, 4) for n in v.norm(dim=-1).tolist()] for encoder, v in vectors.items()}
    about = {"step": str(step.step), "norms": json.dumps(norms), "cosine_to_init": f"{step.cosine:.4f}"}
    best = Embedding(last.name, dict(vectors), last.provenance | about)
    save_embedding(best, file)
    log.info("Stopped. The best word so far, of step %d, is kept in %s.", step.step, file)
    return best


def release() -> None:
    """Every model leaves the GPU; the training's own come back with its next step."""
    with torch.inference_mode():  # as the host moves them
        management.unload_all_models()


def consume(
    host: Watched, dataset: Dataset, config: TrainConfig, folder: Path, resume: bool, run: Run, live: LiveRun
) -> None:
    """Runs the loop, gathering what it brings. Raises the host's interrupt after the step in which it came."""
    bar = comfy.utils.ProgressBar(config.steps, node_id=live.facts["node"])
    try:
        with closing(train_in_memory(host, dataset, config, folder, resume, release)) as events:
            for event in events:
                if isinstance(event, Step):
                    run.steps.append(event)
                    bar.update_absolute(event.step, config.steps)
                    live.step(event, host)
                elif isinstance(event, Preview):
                    run.previews.append(event.image)
                    bar.update_absolute(bar.current, config.steps, ("JPEG", event.image, MAX_PREVIEW_RESOLUTION))
                    live.preview(event)
                elif isinstance(event, Warning):
                    log.warning(event.message)
                    live.warn(event.message)
                elif isinstance(event, Done):
                    run.embedding = event.embedding
                    log.info("Learnt '%s' in %.0f s: %s", config.name, event.seconds, event.path)
                elif isinstance(event, Checkpoint):
                    log.debug("Step %d is saved: %s", event.step, event.path)
                management.throw_exception_if_processing_interrupted()
                if live.stop.is_set() and run.embedding is None:
                    return
    except management.InterruptProcessingException:
        kept = f"Step {run.steps[-1].step}" if run.steps else "What was there before"
        log.warning(
            "Cancelled. %s of '%s' is kept in %s; if_exists = continue goes on from there.", kept, config.name, folder
        )
        raise
