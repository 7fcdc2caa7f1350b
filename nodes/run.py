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
from ..ti_train.host import Host
from ..ti_train.training.config import TrainConfig
from ..ti_train.training.session import Records, Session
from .files import embeddings_folder
from .page.live import LiveRun, followed

TO_CONTINUE = "with the same settings and if_exists = continue"
log = logging.getLogger("ti_train")


def run_training(
    host: Host, dataset: Dataset, config: TrainConfig, folder: Path, resume: bool, hidden: Any
) -> tuple[Embedding, Session, list[Image.Image]]:
    """Trains to the last step, or until a page requests Stop and keep. The images are the previews.

    hidden: the node's unique_id and extra_pnginfo.
    """
    session, previews = Session(config, folder, Records.log_only(folder, config.name)), []
    workflow = ((hidden.extra_pnginfo or {}).get("workflow") or {}).get("id")
    live = LiveRun(config, str(hidden.unique_id), workflow, folder == embeddings_folder())
    with followed(live):
        try:
            with closing(session.train(host, dataset, resume, release, live.stop.is_set)) as events:
                for event in events:
                    live.show(event, session, host)
                    previews += [event.image] if isinstance(event, Preview) else []
                    management.throw_exception_if_processing_interrupted()
        except BaseException:  # InterruptProcessingException too
            if session.trained:
                log.warning("The training of '%s' has ended early. %s", config.name, session.saved(TO_CONTINUE))
            raise
        assert session.done
        return session.done.embedding, session, previews


def release() -> None:
    """Unloads all models from the GPU; the next training step loads its models again."""
    with torch.inference_mode():  # as the host does when it moves weights
        management.unload_all_models()
