"""A training session in a node: progress, Cancel, Stop and keep."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import comfy.model_management as management
import torch
from PIL import Image

from ..ti_train.data.dataset import Dataset
from ..ti_train.embedding import Embedding
from ..ti_train.events import Preview
from ..ti_train.formats import load_embedding
from ..ti_train.host import Host
from ..ti_train.hosts.comfy.fitting import NO_SYNTAX
from ..ti_train.training.config import TrainConfig
from ..ti_train.training.session import Session
from .files import embeddings_folder
from .page.live import LiveRun, followed

log = logging.getLogger("ti_train")


def run_training(
    host: Host, dataset: Dataset, config: TrainConfig, folder: Path, resume: bool, hidden: Any
) -> tuple[Embedding, Session, list[Image.Image]]:
    """Trains to the last step, or until a page requests Stop and keep. The images are the previews.

    hidden: the node's unique_id and extra_pnginfo.
    """
    session, previews = Session(config, folder), []
    workflow = ((hidden.extra_pnginfo or {}).get("workflow") or {}).get("id")
    syntax = NO_SYNTAX not in host.remarks
    live = LiveRun(config, str(hidden.unique_id), workflow, folder == embeddings_folder(), syntax)
    with followed(live):
        try:
            with closing(session.train(host, dataset, resume, release)) as events:
                for event in events:
                    live.show(event, session, host)
                    previews += [event.image] if isinstance(event, Preview) else []
                    management.throw_exception_if_processing_interrupted()
                    if live.stop.is_set() and session.done is None:
                        break
        except management.InterruptProcessingException:
            kept = f"Step {session.steps[-1].step}" if session.steps else "The previous embedding"
            log.warning("Cancelled. %s is saved in %s. To resume, set if_exists = continue.", kept, session.file)
            raise
        if session.done:
            return session.done.embedding, session, previews
        log.info("Stopped. The best embedding so far, step %s, is saved in %s.", session.keep_best(), session.file)
        return load_embedding(session.file), session, previews


def release() -> None:
    """Unloads all models from the GPU; the next training step loads its models again."""
    with torch.inference_mode():  # as the host does when it moves weights
        management.unload_all_models()
