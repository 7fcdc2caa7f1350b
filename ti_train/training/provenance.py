"""The embedding of a run, with its provenance for the file's header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..editability import recorded
from ..embedding import Embedding, first_of, mean_cosine
from ..formats import ARCHITECTURE
from ..names import with_paths
from .config import TrainConfig
from .state import State

RUN, FINISHED = "run_id", "finished"  # keys in headers: which run wrote a file; of a finished one, what it trained with


def as_embedding(state: State, config: TrainConfig, identity: Mapping[str, Any], architecture: str = "") -> Embedding:
    """The embedding after a step, with its provenance.

    identity: of its run (see RunFiles). architecture: of its model, in ModelSpec's words.
    """
    count = config.vectors_at(state.step)
    vectors, initial = (
        {e: v.float().cpu() for e, v in first_of(w, count).items()} for w in (state.result, state.initial)
    )
    # files by their names: the folders on the way to them are the user's own
    init, templates = with_paths(config.init, lambda path: Path(path).name), Path(config.templates).name
    provenance = {
        "step": str(state.step),
        "init": init,
        "base_model": str(identity["model"]),
        "config": json.dumps(asdict(config) | {"init": init, "templates": templates}),
        "norms": json.dumps(
            {encoder: [round(n, 4) for n in v.norm(dim=-1).tolist()] for encoder, v in vectors.items()}
        ),
        "cosine_to_init": f"{float(mean_cosine(vectors, initial)):.4f}",
        "software": f"ti-train {__version__}",
        RUN: state.run,
        **({ARCHITECTURE: architecture} if architecture else {}),
        **recorded(initial),
    }
    return Embedding(config.bare_name, vectors, provenance)


def kept_embedding(state: State, config: TrainConfig, identity: Mapping[str, Any], architecture: str = "") -> Embedding:
    """The embedding that a run leaves if it ends after this state (see keeping.py), with the reason in its header."""
    course = state.course
    vectors = dict(course.vectors) if course.keeps_best else state.result
    kept_state = replace(state, step=course.kept(state.step), vectors=vectors, averaged={})
    kept = as_embedding(kept_state, config, identity, architecture)
    losses = {"validation_loss": course.loss, "validation_loss_untrained": course.untrained and course.untrained.loss}
    measured = {key: f"{loss:.6g}" for key, loss in losses.items() if loss is not None}
    return replace(kept, provenance=kept.provenance | {"kept": course.why(state.step)} | measured)


def finished(embedding: Embedding, identity: Mapping[str, Any]) -> Embedding:
    """The embedding of a run that has ended as its user wanted; `RunFiles.has_finished` knows it by its header."""
    return replace(embedding, provenance=embedding.provenance | {FINISHED: digest_of(identity)})


def digest_of(identity: Mapping[str, Any]) -> str:
    """Identifies a run's settings, model and images in the header of its embedding."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
