"""A run on disk: the embedding in its place, and a state file to resume from.

The state file holds no random state: everything that a step draws follows from the seed and the step's number (see
loop.py). Vectors, optimizer moments, the loss scale and the step are enough. It is a safetensors file with another
extension, so that hosts do not list it as an embedding.

Nothing good is overwritten by something worse: until a run ends, its vectors are in the state file. The embedding is
put in its place before that only if nothing is there, or what this run has put there, and if it is not known to be
worse than the untrained one. So whatever ends a run, an earlier embedding of its name is still there, and an untrained
one never is.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .. import __version__
from ..embedding import Embedding, first_of, mean_cosine
from ..errors import UserError
from ..files import write_atomically
from ..formats import save_embedding
from ..names import numbered
from .config import OPTIONS, TrainConfig
from .keeping import Course
from .run_lock import only_run

DIFFERENT = {  # of the identity, where the values say nothing to people
    "pictures": "the images are not the same (their files, captions, masks or crops)",
    "model": "another model is loaded",
    "templates": "the templates have changed",
}
VECTORS, INITIAL, OPTIMIZER, PER_IMAGE, BEST = "vectors.", "start.", "optimizer.", "own.", "best."
AVERAGED = "averaged."
RUN, FINISHED = "run_id", "finished"  # keys in headers: which run wrote a file; of a finished one, what it trained with
INITIAL_FILE = "initial_file"  # of the identity: the digest of the file of the initial vectors
IGNORED = ("name", INITIAL_FILE)  # on resuming: files may be renamed; the initial vectors are in the state


@dataclass(frozen=True)
class State:
    """A run after its last completed step. Tensors are fp32."""

    step: int
    seconds: float  # spent in steps
    vectors: dict[str, Tensor]  # encoder -> [num_vectors, width]
    initial: dict[str, Tensor]  # the same before step 1; the file they came from may have been replaced
    optimizer: dict[str, Tensor]
    per_image: dict[str, Tensor] = field(default_factory=dict)  # encoder -> [images, width]: per-image tokens
    course: Course = field(default_factory=Course)
    run: str = field(default_factory=lambda: token_hex(8))  # tells the files of this run from those of others
    averaged: dict[str, Tensor] = field(default_factory=dict)  # as `vectors`: over the last part of the run, so far

    @property
    def result(self) -> dict[str, Tensor]:
        """The vectors that an embedding of this state has."""
        return self.averaged or self.vectors

    @property
    def num_vectors(self) -> int:
        return len(next(iter(self.vectors.values())))


@dataclass(frozen=True)
class Interrupted:
    """step: the last one of an interrupted run. kept: the one in the embedding's file; None if that is another's."""

    step: int
    kept: int | None


@dataclass(frozen=True)
class RunFiles:
    """The files of a run. identity: the settings, model and images that a resumed run must share."""

    folder: Path
    name: str
    identity: dict[str, Any]

    @property
    def embedding(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    @property
    def beside(self) -> Path:
        """For an embedding that is worse than its untrained vectors, if there is an earlier one."""
        return self.folder / f"{self.name}-worse.safetensors"

    @property
    def state(self) -> Path:
        return self.folder / f"{self.name}.resume"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs of this name from starting. Raises UserError if one runs, or if the folder is read-only."""
        try:
            lock = ExitStack()
            lock.enter_context(only_run(self.embedding.with_name(f".{self.embedding.stem}.lock"), self.name))
        except OSError as error:
            raise UserError(
                f"'{self.folder}' is not writable ({error.strerror or error}). Choose another folder, or free disk "
                "space."
            ) from None
        with lock:
            yield

    def save(self, state: State, embedding: Embedding, finished: bool = False) -> Path | None:
        """Saves a run: its state, and its embedding if that may take its place, whose file is returned.

        finished: the run is complete, or the user has asked to keep what it has. Then an earlier embedding of this name
        is replaced, unless by one that is worse than its untrained vectors: that one is put beside it. Raises OSError.
        """
        if state.step or not self.state.exists():  # an earlier run of this name may have come further than step 0
            self._save_state(state)
        replaces, worse = self._is_free_for(state), state.course.improved is False
        if not finished and (state.step == 0 or worse or not replaces):
            return None
        file = self.beside if worse and not replaces else self.embedding
        save_embedding(embedding, file)
        return file

    def rescue(self, state: State, embedding: Embedding, finished: bool = False) -> Path | None:
        """Saves; if that fails, saves to the system's temporary folder and raises UserError with its path."""
        try:
            return self.save(state, embedding, finished)
        except OSError as error:
            refuge = RunFiles(Path(tempfile.mkdtemp(prefix="ti-train-")), self.name, self.identity)
            try:
                refuge.save(state, embedding, finished)
            except OSError as second:
                raise UserError(
                    f"Neither '{self.folder}' ({error.strerror or error}) nor '{refuge.folder}' "
                    f"({second.strerror or second}) is writable. The files of the last save are unchanged."
                ) from error
            raise UserError(
                f"'{self.folder}' is not writable ({error.strerror or error}). Step {state.step} was saved to "
                f"'{refuge.folder}' instead. Free disk space, copy the files back, and resume."
            ) from error

    def copy(self, state: State, embedding: Embedding) -> Path:
        """Writes a numbered copy, in a folder of this run's copies beside the embedding. Raises OSError."""
        folders = map(self.embedding.with_name, numbered(f"{self.embedding.stem}-steps"))
        folder = next(folder for folder in folders if _are_of(folder, state.run))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.embedding.stem}-{state.step:06d}.safetensors"
        save_embedding(embedding, file)
        return file

    def interrupted(self) -> Interrupted | None:
        """What an interrupted run has left; None if there is none."""
        state, embedding = _header(self.state), _header(self.embedding)
        if "step" not in state:
            return None
        ours = RUN in state and state[RUN] == embedding.get(RUN)
        return Interrupted(int(state["step"]), int(embedding["step"]) if ours else None)

    def _is_free_for(self, state: State) -> bool:
        """Whether the embedding's file does not exist, or was written by this run."""
        return not self.embedding.exists() or _header(self.embedding).get(RUN) == state.run

    def _save_state(self, state: State) -> None:
        tensors = {VECTORS + key: value for key, value in state.vectors.items()}
        tensors |= {INITIAL + key: value for key, value in state.initial.items()}
        tensors |= {OPTIMIZER + key: value for key, value in state.optimizer.items()}
        tensors |= {PER_IMAGE + key: value for key, value in state.per_image.items()}
        tensors |= {AVERAGED + key: value.clone() for key, value in state.averaged.items()}
        tensors |= {BEST + key: value.clone() for key, value in state.course.vectors.items()}  # may be the same
        header = {
            "step": str(state.step),
            "seconds": str(state.seconds),
            "identity": json.dumps(self.identity),
            "course": state.course.written(),
            RUN: state.run,
        }
        self.state.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.state, save({key: t.cpu().contiguous() for key, t in tensors.items()}, header))

    def load(self) -> State:
        """The state of an interrupted run. Raises UserError if there is none, or if it belongs to another run."""
        if not self.state.is_file():
            raise UserError(f"Nothing to resume: '{self.state}' does not exist. Start a new run.")
        try:
            with safe_open(self.state, framework="pt") as file:
                header = file.metadata() or {}
                tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            step, seconds, identity = (
                int(header["step"]),
                float(header["seconds"]),
                json.loads(header["identity"]),
            )
            best = _part(tensors, BEST)
            course = Course.read(header["course"], best) if "course" in header else Course()  # before version 0.2
            run = header.get(RUN, "")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"'{self.state}' is not the state of a run, or it is damaged ({error!r}). Delete it and start "
                "a new run."
            ) from None
        self._check(identity)
        vectors, initial, optimizer, own = (_part(tensors, p) for p in (VECTORS, INITIAL, OPTIMIZER, PER_IMAGE))
        return State(step, seconds, vectors, initial, optimizer, own, course, run, _part(tensors, AVERAGED))

    def _check(self, saved: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.identity))
        newer = {name for name in now if name in OPTIONS and name not in saved}  # options that the run's version lacked
        saved = saved | {name: OPTIONS[name].default for name in newer}
        different = [
            DIFFERENT.get(key) or f"{key} was {saved.get(key)!r}, now {now.get(key)!r}"
            for key in {**now, **saved}
            if saved.get(key) != now.get(key) and key not in IGNORED
        ]
        if different:
            raise UserError(
                f"'{self.state.name}' belongs to another run: {'; '.join(different)}. Use the same settings, "
                f"or start a new run from the trained embedding: init = '{self.embedding.name}'."
            )

    def has_finished(self) -> bool:
        """Whether the embedding that is there is of a run with the same settings, model, images and initial file.

        The run was completed, or stopped by a user who wanted to keep what it had.
        """
        return _header(self.embedding).get(FINISHED) == digest_of(self.identity)

    def can_resume(self) -> bool:
        """Whether a run with the same settings, model and images was interrupted."""
        try:
            self.load()
        except UserError:
            return False
        return True

    def finish(self) -> None:
        """Removes the state file of a completed run."""
        self.state.unlink(missing_ok=True)


def finished(embedding: Embedding, identity: Mapping[str, Any]) -> Embedding:
    """The embedding of a run that has ended as its user wanted; `RunFiles.has_finished` knows it by its header."""
    return replace(embedding, provenance=embedding.provenance | {FINISHED: digest_of(identity)})


def digest_of(identity: Mapping[str, Any]) -> str:
    """Identifies a run's settings, model and images in the header of its embedding."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _are_of(folder: Path, run: str) -> bool:
    """Whether all files in a folder were written by this run; it need not exist."""
    return all(_header(file).get(RUN) == run for file in folder.glob("*"))


def _header(file: Path) -> dict[str, str]:
    """The header of a safetensors file; {} if it is none, or does not exist."""
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def as_embedding(state: State, config: TrainConfig, identity: Mapping[str, Any]) -> Embedding:
    """The embedding after a step, with its provenance. identity: of its run (see RunFiles)."""
    count = config.vectors_at(state.step)
    vectors, initial = (
        {e: v.float().cpu() for e, v in first_of(w, count).items()} for w in (state.result, state.initial)
    )
    provenance = {
        "step": str(state.step),
        "init": config.init,
        "base_model": str(identity["model"]),
        "config": json.dumps(asdict(config)),
        "norms": json.dumps(
            {encoder: [round(n, 4) for n in v.norm(dim=-1).tolist()] for encoder, v in vectors.items()}
        ),
        "cosine_to_init": f"{float(mean_cosine(vectors, initial)):.4f}",
        "software": f"ti-train {__version__}",
        RUN: state.run,
    }
    return Embedding(config.bare_name, vectors, provenance)


def kept_embedding(state: State, config: TrainConfig, identity: Mapping[str, Any]) -> Embedding:
    """The embedding that a run leaves if it ends after this state (see keeping.py), with the reason in its header."""
    course = state.course
    vectors = dict(course.vectors) if course.keeps_best else state.result
    kept_state = replace(state, step=course.kept(state.step), vectors=vectors, averaged={})
    kept = as_embedding(kept_state, config, identity)
    losses = {"validation_loss": course.loss, "validation_loss_untrained": course.untrained}
    measured = {key: f"{loss:.6g}" for key, loss in losses.items() if loss is not None}
    return replace(kept, provenance=kept.provenance | {"kept": course.why(state.step)} | measured)
