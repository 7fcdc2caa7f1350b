"""A training session in a node: progress, Cancel, Stop and keep."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Any

import comfy.model_management as management
import torch
from PIL import Image

from ..ti_train.data.dataset import Dataset
from ..ti_train.embedding import Embedding
from ..ti_train.events import Preview, Warning
from ..ti_train.formats import load_embedding
from ..ti_train.host import Host
from ..ti_train.training.config import TrainConfig
from ..ti_train.training.session import Records, Session
from .files import Place, embeddings_folder
from .page.live import LiveRun, followed

TO_CONTINUE = "with the same settings and if_exists = continue"
log = logging.getLogger("ti_train")


def live_run(config: TrainConfig, place: Place, facts: dict[str, int], hidden: Any) -> LiveRun:
    """The run for the pages. facts: what it trains with. hidden: the node's unique_id and extra_pnginfo."""
    workflow = ((hidden.extra_pnginfo or {}).get("workflow") or {}).get("id")
    return LiveRun(config, str(hidden.unique_id), workflow, place.folder == embeddings_folder(), facts)


def run_training(
    host: Host, dataset: Dataset, config: TrainConfig, place: Place, live: LiveRun, remarks: list[str]
) -> tuple[Embedding, Session, list[Image.Image]]:
    """Trains to the last step, or until a page requests Stop and keep. The images are the previews."""
    session, previews = Session(config, place.folder, Records.log_only(place.folder, config.name)), []
    with followed(live):
        for remark in remarks:
            live.show(Warning(remark), session, host)
        try:
            with closing(session.train(host, dataset, place.resume, release, live.stop.is_set)) as events:
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


def use_finished(config: TrainConfig, place: Place, live: LiveRun) -> tuple[Embedding, Session, list[Image.Image]]:
    """The embedding of a run that was trained before, and a session without steps."""
    session = Session(config, place.folder)
    embedding = load_embedding(session.file)
    log.info("'%s' was trained before with these settings and images, and is used as it is.", place.name)
    live.already_trained(int(embedding.provenance["step"]))
    return embedding, session, []


def release() -> None:
    """Unloads all models from the GPU; the next training step loads its models again."""
    with torch.inference_mode():  # as the host does when it moves weights
        management.unload_all_models()
